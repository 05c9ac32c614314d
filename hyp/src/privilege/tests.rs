//! Every privileged operation, made as a guest makes it, by callers of every relation to the domain that it names.

extern crate std;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use pv_abi::GuestHandle;
use pv_abi::event_channel::{self, AllocUnbound, Reset};
use pv_abi::grant_table::{self, GetStatusFrames, GetVersion, QuerySize, SetupTable};
use pv_abi::hvm::{self, Index, Param};
use pv_abi::hypercall::Hypercall;
use pv_abi::memory::{self as mem, *};
use pv_abi::platform::XENPF_INTERFACE_VERSION;
use pv_abi::sched::{self as sched_abi, RemoteShutdown};
use pv_abi::version;
use zerocopy::{Immutable, IntoBytes};

use super::*;
use crate::hypercall::{Outcome, dispatch};
use crate::mm::testing::{self, Guest};

/// How an attempt ended, as far as rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Denied,
    Allowed,
}

/// A caller with a page for its arguments and one for lists.
struct Actor {
    guest: Guest,
    argument: u64,
    list: u64,
}

impl Actor {
    fn new(id: u16) -> Self {
        Self::with_guest(testing::guest(id, 64))
    }

    fn with_guest(guest: Guest) -> Self {
        let (argument, list) = (guest.page(0x10), guest.page(0x11));
        domain::insert(guest.domain.clone());
        Self { guest, argument, list }
    }

    fn id(&self) -> DomId {
        self.guest.domain.id
    }

    fn raw(&self, call: Hypercall, args: [u64; 5]) -> i64 {
        match dispatch(&self.guest.caller(), call as u64, &args) {
            Outcome::Done(value) => value,
            other => panic!("{call:?}: {other:?}"),
        }
    }

    /// A call with a structure as its second argument.
    fn with<T: IntoBytes + Immutable>(&self, call: Hypercall, op: u32, argument: &T) -> i64 {
        self.guest.put(self.argument, argument);
        self.raw(call, [op.into(), self.argument, 1, 0, 0])
    }

    fn judge(&self, result: i64) -> Answer {
        if result == Errno::EPERM.into() { Answer::Denied } else { Answer::Allowed }
    }

    fn memory<T: IntoBytes + Immutable>(&self, op: mem::Op, argument: &T) -> Answer {
        self.judge(self.with(Hypercall::MemoryOp, op as u32, argument))
    }

    /// Calls that have no error number, but a count of what they did.
    fn resize(&self, op: mem::Op, gfn: u64, domid: DomId) -> Answer {
        self.guest.put(self.list, &gfn);
        let extent_start = GuestHandle::new(self.list);
        let reservation = Reservation { extent_start, nr_extents: 1, domid, ..Reservation::default() };
        match self.with(Hypercall::MemoryOp, op as u32, &reservation) {
            0 => Answer::Denied,
            _ => Answer::Allowed,
        }
    }

    /// Calls that answer by a status.
    fn grants<T: IntoBytes + Immutable + zerocopy::FromBytes>(
        &self,
        op: grant_table::Op,
        argument: &T,
        status: impl Fn(&T) -> i16,
    ) -> Answer {
        assert_eq!(self.with(Hypercall::GrantTableOp, op as u32, argument), 0);
        match grant_table::Status::from_raw(status(&self.guest.take(self.argument))) {
            Some(grant_table::Status::PermissionDenied) => Answer::Denied,
            _ => Answer::Allowed,
        }
    }
}

type Attempt = fn(&Actor, DomId) -> Answer;

/// Each operation that is about a domain: what it is called, what it is, how it is tried.
fn attempts() -> Vec<(&'static str, Action, Attempt)> {
    vec![
        ("increase", Action::SizeMemory, |a, id| a.resize(mem::Op::IncreaseReservation, 0, id)),
        ("populate", Action::SizeMemory, |a, id| a.resize(mem::Op::PopulatePhysmap, 0x80, id)),
        ("decrease", Action::SizeMemory, |a, id| {
            // What everybody has there, but for who is mapped 1:1.
            let subject = domain::find(id).unwrap();
            let gfn = if subject.is_direct_mapped { a.list >> 12 } else { 0x12 };
            a.resize(mem::Op::DecreaseReservation, gfn, id)
        }),
        ("exchange", Action::SizeMemory, |a, id| {
            let reservation = Reservation { domid: id, ..Reservation::default() };
            a.memory(
                mem::Op::Exchange,
                &MemoryExchange { r#in: reservation, out: reservation, nr_exchanged: 0 },
            )
        }),
        ("current", Action::AskMemory, |a, id| {
            a.memory(mem::Op::CurrentReservation, &mem::Domain { domid: id })
        }),
        ("maximum", Action::AskMemory, |a, id| {
            a.memory(mem::Op::MaximumReservation, &mem::Domain { domid: id })
        }),
        ("gpfn", Action::AskMemory, |a, id| a.memory(mem::Op::MaximumGpfn, &mem::Domain { domid: id })),
        ("vnuma", Action::AskMemory, |a, id| {
            a.memory(mem::Op::GetVnumainfo, &VnumaTopologyInfo { domid: id, ..VnumaTopologyInfo::default() })
        }),
        ("add", Action::ChangePhysmap, |a, id| {
            a.memory(
                mem::Op::AddToPhysmap,
                &AddToPhysmap { domid: id, gpfn: 0x90, ..AddToPhysmap::default() },
            )
        }),
        ("batch", Action::ChangePhysmap, |a, id| {
            a.memory(
                mem::Op::AddToPhysmapBatch,
                &AddToPhysmapBatch { domid: id, ..AddToPhysmapBatch::default() },
            )
        }),
        ("remove", Action::ChangePhysmap, |a, id| {
            a.memory(mem::Op::RemoveFromPhysmap, &RemoveFromPhysmap { domid: id, gpfn: 0x90, _pad: [0; 3] })
        }),
        ("foreign", Action::MapForeign, |a, id| {
            a.guest.put(a.list, &[0x10u64, 0xa0, 0]);
            let at = |index: u64| GuestHandle::new(a.list + index * 8);
            let batch = AddToPhysmapBatch {
                domid: DOMID_SELF,
                space: Space::GmfnForeign as u16,
                size: 1,
                foreign_domid: id,
                idxs: at(0),
                gpfns: at(1),
                errs: at(2),
            };
            assert_eq!(a.with(Hypercall::MemoryOp, mem::Op::AddToPhysmapBatch as u32, &batch), 0);
            a.judge(a.guest.take::<i32>(a.list + 16).into())
        }),
        ("acquire", Action::AcquireResource, |a, id| {
            a.memory(mem::Op::AcquireResource, &AcquireResource { domid: id, ..AcquireResource::default() })
        }),
        ("access", Action::WatchMemory, |a, id| {
            a.memory(mem::Op::AccessOp, &MemAccessOp { domid: id, ..MemAccessOp::default() })
        }),
        ("claim", Action::Claim, |a, id| {
            a.memory(mem::Op::ClaimPages, &Reservation { domid: id, ..Reservation::default() })
        }),
        ("setup", Action::AskGrants, |a, id| {
            a.grants(grant_table::Op::SetupTable, &SetupTable { dom: id, ..SetupTable::default() }, |s| {
                s.status
            })
        }),
        ("size", Action::AskGrants, |a, id| {
            a.grants(grant_table::Op::QuerySize, &QuerySize { dom: id, ..QuerySize::default() }, |s| s.status)
        }),
        ("status frames", Action::AskGrants, |a, id| {
            let argument = GetStatusFrames { dom: id, ..GetStatusFrames::default() };
            a.grants(grant_table::Op::GetStatusFrames, &argument, |s| s.status)
        }),
        ("version", Action::AskGrants, |a, id| {
            let argument = GetVersion { dom: id, ..GetVersion::default() };
            a.judge(a.with(Hypercall::GrantTableOp, grant_table::Op::GetVersion as u32, &argument))
        }),
        ("unbound", Action::ChangePorts, |a, id| {
            let argument = AllocUnbound { dom: id, remote_dom: DOMID_SELF, ..AllocUnbound::default() };
            a.judge(a.with(Hypercall::EventChannelOp, event_channel::Op::AllocUnbound as u32, &argument))
        }),
        ("reset", Action::ChangePorts, |a, id| {
            let argument = Reset { dom: id };
            a.judge(a.with(Hypercall::EventChannelOp, event_channel::Op::Reset as u32, &argument))
        }),
        ("status", Action::AskPorts, |a, id| {
            let argument = event_channel::Status { dom: id, ..event_channel::Status::default() };
            a.judge(a.with(Hypercall::EventChannelOp, event_channel::Op::Status as u32, &argument))
        }),
        ("get_param", Action::ReadParameter, |a, id| {
            let argument = Param { domid: id, index: Index::StorePfn as u32, ..Param::default() };
            a.judge(a.with(Hypercall::HvmOp, hvm::Op::GetParam as u32, &argument))
        }),
        ("set_param", Action::SetParameter, |a, id| {
            let argument = Param { domid: id, index: Index::StorePfn as u32, ..Param::default() };
            a.judge(a.with(Hypercall::HvmOp, hvm::Op::SetParam as u32, &argument))
        }),
        ("remote_shutdown", Action::RemoteShutdown, |a, id| {
            let argument = RemoteShutdown { domain_id: id, ..RemoteShutdown::default() };
            a.judge(a.with(Hypercall::SchedOp, sched_abi::Op::RemoteShutdown as u32, &argument))
        }),
    ]
}

/// Operations about the machine, each by its number, all of which begin with their interface version.
fn machine_attempts(actor: &Actor) -> Vec<(String, Action, Answer)> {
    let mut all = vec![];
    let toolstack = |call: Hypercall, action, version: u32, last: u32, all: &mut Vec<_>| {
        for op in 0..=last {
            // To another domain, for `domctl`; a version that is not the one for who may, so that nothing is done.
            let version = if actor.guest.domain.is_control { 0 } else { version };
            actor.guest.put(actor.argument, &[op, version, 3, 0]);
            let result = actor.raw(call, [actor.argument, 0, 0, 0, 0]);
            let describes = call == Hypercall::Domctl && op == pv_abi::domctl::Op::Getdomaininfo as u32;
            let action = if describes { Action::Describe } else { action };
            all.push((format!("{call:?} {op}"), action, actor.judge(result)));
        }
    };
    toolstack(Hypercall::Domctl, Action::Domctl, pv_abi::domctl::XEN_DOMCTL_INTERFACE_VERSION, 100, &mut all);
    toolstack(Hypercall::Sysctl, Action::Sysctl, pv_abi::sysctl::XEN_SYSCTL_INTERFACE_VERSION, 40, &mut all);
    toolstack(Hypercall::PlatformOp, Action::UseMachine, XENPF_INTERFACE_VERSION, 70, &mut all);
    for op in 0..3 {
        let result = actor.raw(Hypercall::ConsoleIo, [op, 0, actor.argument, 0, 0]);
        all.push((format!("console {op}"), Action::UseConsole, actor.judge(result)));
    }
    let build_id = actor.raw(Hypercall::XenVersion, [version::Op::BuildId as u64, actor.argument, 0, 0, 0]);
    all.push((String::from("build-id"), Action::ReadBuild, actor.judge(build_id)));
    for op in [version::Op::Commandline, version::Op::Changeset, version::Op::CompileInfo] {
        assert_eq!(actor.raw(Hypercall::XenVersion, [op as u64, actor.argument, 0, 0, 0]), 0);
        let denied = actor.guest.take::<[u8; 8]>(actor.argument) == *b"<denied>";
        let answer = if denied { Answer::Denied } else { Answer::Allowed };
        all.push((format!("{op:?}"), Action::ReadBuild, answer));
    }
    all
}

#[test]
fn nobody_may_more_than_the_table_says() {
    testing::machine(16);
    crate::sched::init(crate::sched::CpuMask::first_n(1));
    for (name, action, attempt) in attempts() {
        let all @ [control, plain, model, subject] = &[0, 101, 102, 103].map(Actor::new);
        assert!(model.guest.domain.set_target(&subject.guest.domain));
        let rights: [(&Actor, &Actor, &[Right]); 10] = [
            (control, subject, &[Right::Own, Right::Model, Right::Control]),
            (control, model, &[Right::Own, Right::Model, Right::Control]),
            (plain, plain, &[Right::Own]),
            (plain, subject, &[]),
            (plain, control, &[]),
            (model, subject, &[Right::Own, Right::Model]),
            (model, model, &[Right::Own]),
            (model, plain, &[]),
            (model, control, &[]),
            (subject, model, &[]),
        ];
        for (caller, about, allowing) in rights {
            if !about.guest.domain.is_direct_mapped && about.guest.mfn(0x12).is_none() {
                about.guest.populate(0x12, 0);
            }
            let expected = if allowing.contains(&action.right()) { Answer::Allowed } else { Answer::Denied };
            let who = format!("{name} by {} about {}", caller.id(), about.id());
            assert_eq!(attempt(caller, about.id()), expected, "{who}");
        }
        for actor in all {
            domain::remove(actor.id());
            crate::event::destroy(&actor.guest.domain);
            crate::grant::destroy(&actor.guest.domain);
        }
    }
}

#[test]
fn the_machine_is_the_control_domains() {
    testing::machine(16);
    let [control, plain, model, subject] = &[0, 111, 112, 3].map(Actor::new);
    let store = &Actor::with_guest(testing::guest_with(113, 64, |domain| domain.is_store = true));
    assert!(model.guest.domain.set_target(&subject.guest.domain));
    let rights: [(&Actor, &[Right]); 4] =
        [(control, &[Right::Control, Right::Store]), (store, &[Right::Store]), (plain, &[]), (model, &[])];
    for (actor, allowing) in rights {
        for (name, action, answer) in machine_attempts(actor) {
            let expected = if allowing.contains(&action.right()) { Answer::Allowed } else { Answer::Denied };
            assert_eq!(answer, expected, "{name} by {}", actor.id());
        }
    }
    for actor in [control, plain, model, subject, store] {
        domain::remove(actor.id());
    }
}

#[test]
fn every_right_is_tried_and_written_down() {
    testing::machine(16);
    let mut tried: Vec<Action> = attempts().iter().map(|(_, action, _)| *action).collect();
    let control = Actor::new(0);
    tried.extend(machine_attempts(&control).iter().map(|(_, action, _)| *action));
    domain::remove(control.id());
    let page = include_str!("../../../docs/threat-model.md");
    let mut rows = 0;
    for (action, text) in Action::ALL {
        assert!(tried.contains(action), "{action:?} is not tried");
        let (own, target) = match action.right() {
            Right::Own => ("yes", "yes"),
            Right::Model => ("no", "yes"),
            Right::Control | Right::Store => ("no", "no"),
        };
        let row = format!("\n| {text} | {own} | {target} |\n");
        assert!(page.contains(&row), "docs/threat-model.md lacks {row}");
        rows += 1;
    }
    let table = page.split("\n## Rights\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    assert_eq!(table.lines().filter(|line| line.starts_with("| `")).count(), rows, "a row about nothing");
}

#[test]
fn a_target_is_for_good_and_no_other_domain_of_its_number() {
    testing::machine(16);
    let [model, subject, other] = &[121, 122, 123].map(Actor::new);
    let (model, target) = (&model.guest.domain, &subject.guest.domain);
    assert!(model.set_target(target) && !model.set_target(&other.guest.domain) && !model.set_target(target));
    assert!(
        model.is_model_of(target) && !model.is_model_of(&other.guest.domain) && !target.is_model_of(model)
    );
    assert!(!target.set_target(model), "each could wait for the other's memory");
    assert!(!other.guest.domain.set_target(model), "nor each for the next one's");
    let namesake = testing::guest(122, 1);
    assert_eq!(may_to(model, Action::RemoteShutdown, &namesake.domain), Err(Errno::EPERM));
    assert_eq!(may_to(model, Action::RemoteShutdown, target), Ok(()));
    for id in 121..124 {
        domain::remove(DomId::new(id));
    }
}
