//! Any sequence of calls against a model of what ports are.

extern crate std;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use proptest::prelude::*;

use super::super::*;
use super::{domain, is_pending, serve_first, set_mask};
use crate::mm::testing;

#[derive(Clone, Debug)]
enum Call {
    Alloc { of: usize, remote: usize },
    Bind { near: usize, far: usize, port: Port },
    Ipi { of: usize },
    Virq { of: usize, virq: u32 },
    Close { of: usize, port: Port },
    Send { of: usize, port: Port },
    RaiseVirq { of: usize, virq: u32 },
    Mask { of: usize, port: Port },
    Unmask { of: usize, port: Port },
    Serve { of: usize },
    Reset { of: usize },
}

fn call() -> impl Strategy<Value = Call> {
    let of = 0..DOMAINS;
    let port = 0..9u32;
    let virq = 2..4u32;
    prop_oneof![
        4 => (of.clone(), of.clone()).prop_map(|(of, remote)| Call::Alloc { of, remote }),
        6 => (of.clone(), of.clone(), port.clone()).prop_map(|(near, far, port)| Call::Bind { near, far, port }),
        1 => of.clone().prop_map(|of| Call::Ipi { of }),
        2 => (of.clone(), virq.clone()).prop_map(|(of, virq)| Call::Virq { of, virq }),
        3 => (of.clone(), port.clone()).prop_map(|(of, port)| Call::Close { of, port }),
        8 => (of.clone(), port.clone()).prop_map(|(of, port)| Call::Send { of, port }),
        1 => (of.clone(), virq).prop_map(|(of, virq)| Call::RaiseVirq { of, virq }),
        2 => (of.clone(), port.clone()).prop_map(|(of, port)| Call::Mask { of, port }),
        3 => (of.clone(), port).prop_map(|(of, port)| Call::Unmask { of, port }),
        4 => of.clone().prop_map(|of| Call::Serve { of }),
        1 => of.prop_map(|of| Call::Reset { of }),
    ]
}

const DOMAINS: usize = 3;
/// Ports in the first bucket, all there is here.
const BUCKET: Port = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    Unbound(usize),
    Peer(usize, Port),
    Ipi,
    Virq(u32),
}

/// One domain as it should be.
#[derive(Clone, Debug, Default)]
struct Model {
    ports: BTreeMap<Port, Bound>,
    pending: BTreeSet<Port>,
    masked: BTreeSet<Port>,
    has_table: bool,
}

impl Model {
    fn open(&mut self, bound: Bound) -> Port {
        let port = (1..).find(|port| !self.ports.contains_key(port)).unwrap();
        self.ports.insert(port, bound);
        self.has_table = true;
        port
    }
}

fn close(models: &mut [Model], of: usize, port: Port) -> Result<(), Errno> {
    match models[of].ports.remove(&port).ok_or(Errno::EINVAL)? {
        Bound::Peer(far, far_port) => {
            models[far].ports.insert(far_port, Bound::Unbound(of));
        }
        Bound::Unbound(_) | Bound::Ipi | Bound::Virq(_) => {}
    }
    models[of].pending.remove(&port);
    Ok(())
}

proptest! {
    #[test]
    fn ports_behave_as_the_model_says(calls in prop::collection::vec(call(), 1..80)) {
        testing::machine(4);
        let domains: Vec<_> = (1..=DOMAINS as u16).map(|id| domain(id, 1)).collect();
        let mut models = std::vec![Model::default(); DOMAINS];
        for call in calls {
            match call {
                Call::Alloc { of, remote } => {
                    let port = models[of].open(Bound::Unbound(remote));
                    prop_assert_eq!(alloc_unbound(&domains[of], domains[remote].id), Ok(port));
                }
                Call::Bind { near, far, port } => {
                    let expected = match models[far].ports.get(&port) {
                        Some(Bound::Unbound(remote)) if *remote == near => {
                            let near_port = models[near].open(Bound::Peer(far, port));
                            models[far].ports.insert(port, Bound::Peer(near, near_port));
                            models[near].pending.insert(near_port);
                            Ok(near_port)
                        }
                        _ => Err(Errno::EINVAL),
                    };
                    prop_assert_eq!(bind_interdomain(&domains[near], &domains[far], port), expected);
                }
                Call::Ipi { of } => {
                    let port = models[of].open(Bound::Ipi);
                    prop_assert_eq!(bind_ipi(&domains[of], 0), Ok(port));
                }
                Call::Virq { of, virq } => {
                    let is_bound = models[of].ports.values().any(|b| *b == Bound::Virq(virq));
                    let expected =
                        if is_bound { Err(Errno::EEXIST) } else { Ok(models[of].open(Bound::Virq(virq))) };
                    prop_assert_eq!(bind_virq(&domains[of], virq, 0), expected);
                }
                Call::Close { of, port } => {
                    let expected = close(&mut models, of, port);
                    prop_assert_eq!(super::super::close(&domains[of], port), expected);
                }
                Call::Send { of, port } => {
                    let expected = match models[of].ports.get(&port).copied() {
                        Some(Bound::Peer(far, far_port)) => {
                            models[far].pending.insert(far_port);
                            Ok(())
                        }
                        Some(Bound::Ipi) => {
                            models[of].pending.insert(port);
                            Ok(())
                        }
                        Some(Bound::Unbound(_)) => Ok(()),
                        Some(Bound::Virq(_)) | None => Err(Errno::EINVAL),
                    };
                    prop_assert_eq!(send(&domains[of], port), expected);
                }
                Call::RaiseVirq { of, virq } => {
                    let bound = models[of].ports.iter().find(|(_, b)| **b == Bound::Virq(virq));
                    if let Some(port) = bound.map(|(port, _)| *port) {
                        models[of].pending.insert(port);
                    }
                    send_global_virq(&domains[of], Virq::try_from(virq).unwrap());
                }
                Call::Mask { of, port } => {
                    models[of].masked.insert(port);
                    set_mask(&domains[of], port, true);
                }
                Call::Unmask { of, port } => {
                    let expected = if models[of].has_table { Ok(()) } else { Err(Errno::EINVAL) };
                    if expected.is_ok() {
                        models[of].masked.remove(&port);
                    }
                    prop_assert_eq!(unmask(&domains[of], port), expected);
                }
                Call::Serve { of } => {
                    let expected: Vec<Port> = models[of].pending.difference(&models[of].masked).copied().collect();
                    prop_assert_eq!(is_upcall_pending(&domains[of], VcpuId::new(0)), !expected.is_empty()
                        || is_upcall_pending(&domains[of], VcpuId::new(0)), "an event waits untold");
                    prop_assert_eq!(serve_first(&domains[of]), expected.clone());
                    models[of].pending.retain(|port| !expected.contains(port));
                }
                Call::Reset { of } => {
                    let open: Vec<Port> = models[of].ports.keys().copied().collect();
                    for port in open {
                        close(&mut models, of, port).unwrap();
                    }
                    prop_assert!(reset(&domains[of]));
                }
            }
            for (model, domain) in models.iter().zip(&domains) {
                for port in 1..12.min(BUCKET) {
                    prop_assert_eq!(is_pending(domain, port), model.pending.contains(&port), "port {}", port);
                    let expected = match model.ports.get(&port) {
                        None => StatusKind::Closed,
                        Some(Bound::Unbound(_)) => StatusKind::Unbound,
                        Some(Bound::Peer(..)) => StatusKind::Interdomain,
                        Some(Bound::Ipi) => StatusKind::Ipi,
                        Some(Bound::Virq(_)) => StatusKind::Virq,
                    };
                    match status(domain, port) {
                        Ok(found) => prop_assert_eq!(found.status, expected.raw()),
                        Err(errno) => prop_assert!(errno == Errno::EINVAL && !model.has_table),
                    }
                }
            }
        }
        for domain in &domains {
            prop_assert!(destroy(domain));
        }
        for domain in &domains {
            prop_assert_eq!(Arc::strong_count(domain), 1);
        }
    }
}
