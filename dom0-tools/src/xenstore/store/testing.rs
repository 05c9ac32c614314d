//! What the tests of the store share: a store with clients, and requests in the protocol's own bytes.

use std::collections::BTreeSet;

use pv_abi::Errno;
use pv_abi::domid::DomId;
use pv_abi::xs_wire::{MessageType, SockMsg};

use super::{ClientId, Host, Store};
use crate::xenstore::wire::{self, Assembler, Message};

/// A world with domains 1 to 99, which all have rings.
#[derive(Debug, Default)]
pub struct World {
    pub connected: BTreeSet<ClientId>,
}

impl Host for World {
    fn introduce(&mut self, client: ClientId, domain: DomId, _: u64, _: u32) -> Result<(), Errno> {
        if domain.raw() > 99 {
            return Err(Errno::EINVAL);
        }
        self.connected.insert(client);
        Ok(())
    }

    fn reset(&mut self, _: ClientId) {}

    fn release(&mut self, client: ClientId) {
        self.connected.remove(&client);
    }

    fn control(&mut self, command: &str, _: &[&str]) -> Option<Result<String, Errno>> {
        (command == "print").then(|| Ok("OK".to_owned()))
    }
}

/// A store, and the world.
#[derive(Debug)]
pub struct Bench {
    pub store: Store,
    pub world: World,
}

impl Bench {
    pub fn new() -> Self {
        Self { store: Store::new(), world: World::default() }
    }

    pub fn tools(&mut self) -> ClientId {
        self.store.connect_tools()
    }

    /// A domain with a home of its own.
    pub fn domain(&mut self, id: u16) -> ClientId {
        let tools = self.tools();
        let home = format!("/local/domain/{id}");
        self.ok(tools, MessageType::Mkdir, &[&home]);
        self.ok(tools, MessageType::SetPerms, &[&home, &format!("n{id}")]);
        self.store.disconnect(tools);
        self.store.introduce_domain(DomId::new(id), 1, 1, &mut self.world).unwrap()
    }

    /// A request of strings in a transaction.
    pub fn ask_in(
        &mut self,
        client: ClientId,
        tx_id: u32,
        kind: MessageType,
        fields: &[&str],
    ) -> Result<Vec<u8>, Errno> {
        let mut payload: Vec<u8> =
            fields.iter().flat_map(|field| [field.as_bytes(), b"\0"].concat()).collect();
        if kind == MessageType::Write {
            payload.pop();
        }
        self.send(client, tx_id, kind.raw(), payload)
    }

    /// A request of any bytes.
    pub fn send(
        &mut self,
        client: ClientId,
        tx_id: u32,
        kind: u32,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, Errno> {
        let header = SockMsg { r#type: kind, req_id: 77, tx_id, len: payload.len() as u32 };
        let before = self.take(client);
        self.store.request(client, &Message { header, payload }, &mut self.world);
        let mut after = self.take(client);
        // Events of the request itself may come before its answer, and after.
        let at = after.iter().position(|message| message.header.r#type != MessageType::WatchEvent.raw());
        let answer = after.remove(at.expect("an answer"));
        for message in before.into_iter().chain(after) {
            let outbox = &mut self.store.client(client).unwrap().outbox;
            outbox.answer(message.header, &message.payload);
        }
        assert_eq!((answer.header.req_id, answer.header.tx_id), (77, tx_id));
        if answer.header.r#type == MessageType::Error.raw() {
            return Err(wire::error(&answer.payload));
        }
        assert_eq!(answer.header.r#type, kind);
        Ok(answer.payload)
    }

    pub fn ask(&mut self, client: ClientId, kind: MessageType, fields: &[&str]) -> Result<Vec<u8>, Errno> {
        self.ask_in(client, 0, kind, fields)
    }

    pub fn ok(&mut self, client: ClientId, kind: MessageType, fields: &[&str]) -> Vec<u8> {
        self.ask(client, kind, fields).unwrap_or_else(|errno| panic!("{kind:?} {fields:?}: {errno:?}"))
    }

    pub fn begin(&mut self, client: ClientId) -> u32 {
        let answer = self.ok(client, MessageType::TransactionStart, &[""]);
        String::from_utf8(answer).unwrap().trim_end_matches('\0').parse().unwrap()
    }

    pub fn commit(&mut self, client: ClientId, number: u32) -> Result<(), Errno> {
        self.ask_in(client, number, MessageType::TransactionEnd, &["T"]).map(drop)
    }

    /// All that waits for a client.
    pub fn take(&mut self, client: ClientId) -> Vec<Message> {
        let Some(client) = self.store.client(client) else { return Vec::new() };
        let bytes = client.outbox.rest();
        client.outbox.clear();
        let (mut assembler, mut rest, mut found) = (Assembler::default(), &bytes[..], Vec::new());
        while let Some(message) = assembler.feed(&mut rest).unwrap() {
            found.push(message);
        }
        found
    }

    /// The events that wait for a client: path and token.
    pub fn events(&mut self, client: ClientId) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = |message: Message| {
            let mut fields = wire::strings(&message.payload).map(text);
            (fields.next().unwrap(), fields.next().unwrap())
        };
        self.take(client).into_iter().map(fields).collect()
    }
}
