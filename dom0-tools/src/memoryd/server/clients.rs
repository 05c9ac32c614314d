//! What is done for who is connected: answers, claims, news for those who follow.

use memory_policy::{Kib, Millis};
use pv_abi::domid::DomId;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::peers::{Peer, Room, Stream, Wish};
use super::{FOLLOW, Listener, Server, hands, since_1970};
use crate::daemon;
use crate::memoryd::counters;
use crate::memoryd::protocol::{Answer, Request};
use crate::memoryd::view::Status;
use crate::uuid::Uuid;

impl Server {
    /// How everything is now.
    fn status(&mut self) -> Status {
        let now = self.clock.now();
        let mut status = self.core.status(now, since_1970());
        for domain in &mut status.domains {
            domain.mapping = hands::mapping(&self.xen, DomId::new(domain.domid));
        }
        status
    }

    /// Tells those who follow, and the recording.
    pub(super) fn tell(&mut self, has_changed: bool) {
        let now = self.clock.now();
        let is_time = now.since(self.told) >= FOLLOW || has_changed;
        let followers: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| peer.follows).map(|(id, _)| *id).collect();
        if followers.is_empty() && self.recorder.is_none() {
            return;
        }
        if is_time {
            self.told = now;
            let status = self.status();
            if let Some(Err(error)) = self.recorder.as_mut().map(|recorder| recorder.write(&status)) {
                self.report(format!("the recording ends: {error}"));
                self.recorder = None;
            }
            let answer = Answer::Status(Box::new(status));
            for id in followers {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.answer(&answer);
                }
                self.flush(id);
            }
        }
        self.look_within(FOLLOW);
    }

    pub(super) fn accept(&mut self, is_metrics: bool) {
        let stream = match (&self.metrics, is_metrics) {
            (_, false) => self.control.accept().map(|(stream, _)| Stream::Unix(stream)),
            (Some(Listener::Unix(listener)), true) => {
                listener.accept().map(|(stream, _)| Stream::Unix(stream))
            }
            (Some(Listener::Tcp(listener)), true) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            (None, true) => return,
        };
        // One that has left already, or one too many, is dropped.
        let Ok(Ok(peer)) = stream.map(|stream| Peer::new(stream, is_metrics)) else { return };
        match Room::among(&self.peers, is_metrics) {
            Room::Free => {}
            Room::Instead(other) => self.leave(other),
            Room::None => return,
        }
        let id = self.next_peer;
        self.next_peer += 1;
        if daemon::listen(&self.poll, &peer.stream, id).is_ok() {
            self.peers.insert(id, peer);
        }
    }

    /// Somebody says something, or reads again.
    pub(super) fn serve(&mut self, id: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Ok(wishes) = peer.listen() else { return self.leave(id) };
        for wish in wishes {
            match wish {
                Wish::Metrics => {
                    self.look();
                    let page = counters::prometheus(&self.status());
                    if let Some(peer) = self.peers.get_mut(&id) {
                        peer.show(&page);
                    }
                }
                Wish::Ask(asked) => {
                    let answer =
                        asked.map_or_else(|why| Some(Answer::Refused(why)), |asked| self.answer(id, asked));
                    if let (Some(peer), Some(answer)) = (self.peers.get_mut(&id), answer) {
                        peer.answer(&answer);
                    }
                }
            }
        }
        self.flush(id);
    }

    /// The answer to a request, if there is one yet.
    fn answer(&mut self, peer: u64, request: Request) -> Option<Answer> {
        match request {
            Request::Status => {
                self.look();
                Some(Answer::Status(Box::new(self.status())))
            }
            Request::Follow => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.follows = true;
                }
                self.look_within(Millis::ZERO);
                Some(Answer::Status(Box::new(self.status())))
            }
            Request::Explain { domain } => {
                Some(match self.core.explain(DomId::new(domain), self.clock.now()) {
                    Some(told) => Answer::Decisions(told),
                    None => Answer::Refused(format!("there is no domain {domain}")),
                })
            }
            Request::Reserve { uuid, kib, deadline_ms } => {
                let Ok(uuid) = uuid.parse::<Uuid>() else {
                    return Some(Answer::Refused(format!("'{uuid}' is no UUID")));
                };
                self.look();
                let now = self.clock.now();
                let within = Millis::new(deadline_ms);
                if let Err(why) = self.core.admit(Kib::new(kib), within, now) {
                    self.core.answered(false);
                    return Some(Answer::Refused(why));
                }
                self.core.claims.add(peer, uuid.0, Kib::new(kib), now, now + within);
                // Donors hear of it at once, and if there is enough so does who asked.
                self.look();
                None
            }
        }
    }

    /// Answers the claims that can be.
    pub(super) fn answer_claims(&mut self) {
        let now = self.clock.now();
        let free = self.core.free_for_claims();
        for claim in self.core.claims.answers(free, now) {
            let after_ms = now.since(claim.since).get();
            let answer = match claim.is_granted {
                true => Answer::Reserved { after_ms },
                false => {
                    let (asked, seconds) = (claim.amount, after_ms / 1000);
                    Answer::Refused(format!(
                        "{asked} asked for, {free} free after {seconds} s: the domains give too slowly"
                    ))
                }
            };
            self.core.answered(claim.is_granted);
            if let Some(peer) = self.peers.get_mut(&claim.asker) {
                peer.answer(&answer);
            }
            self.flush(claim.asker);
        }
    }

    fn flush(&mut self, id: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.flush().is_err() {
            return self.leave(id);
        }
        let flags = if peer.is_full() { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        // It was added when it came.
        let _ = epoll::modify(&self.poll, &peer.stream, EventData::new_u64(id), flags);
    }

    fn leave(&mut self, id: u64) {
        self.peers.remove(&id);
        self.core.claims.end(id);
    }
}
