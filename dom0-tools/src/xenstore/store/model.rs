//! The store against a model that is too simple to be wrong: a map of paths, copied as a whole for each transaction.

use std::collections::BTreeMap;

use proptest::prelude::*;
use pv_abi::Errno;
use pv_abi::xs_wire::MessageType::{self, *};

use super::testing::Bench;
use crate::xenstore::path;

type Nodes = BTreeMap<String, String>;
type Outcome = Result<Vec<String>, Errno>;

#[derive(Clone, Debug)]
enum Op {
    Read(String),
    List(String),
    Write(String, u8),
    Mkdir(String),
    Rm(String),
}

#[derive(Clone, Debug)]
enum Step {
    Do(usize, Op),
    Begin(usize),
    Commit(usize),
    Abort(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let path = || "(/[ab]){1,3}";
    prop_oneof![
        3 => path().prop_map(Op::Read),
        1 => path().prop_map(Op::List),
        3 => (path(), any::<u8>()).prop_map(|(path, value)| Op::Write(path, value)),
        1 => path().prop_map(Op::Mkdir),
        1 => path().prop_map(Op::Rm),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0usize..3;
    prop_oneof![
        6 => (client(), op()).prop_map(|(client, op)| Step::Do(client, op)),
        2 => client().prop_map(Step::Begin),
        2 => client().prop_map(Step::Commit),
        1 => client().prop_map(Step::Abort),
    ]
}

/// What the model does.
fn run(nodes: &mut Nodes, op: &Op) -> Outcome {
    let make = |nodes: &mut Nodes, path: &str| {
        let mut above = path;
        while above != "/" {
            nodes.entry(above.to_owned()).or_default();
            above = path::parent(above);
        }
    };
    match op {
        Op::Read(path) => nodes.get(path).map(|value| vec![value.clone()]).ok_or(Errno::ENOENT),
        Op::List(path) => {
            nodes.get(path).ok_or(Errno::ENOENT)?;
            let below = nodes.keys().filter(|node| path::depth_below(node, path) == Some(1));
            Ok(below.map(|node| node[path.len() + 1..].to_owned()).collect())
        }
        Op::Write(path, value) => {
            make(nodes, path);
            nodes.insert(path.clone(), value.to_string());
            Ok(vec!["OK\0".to_owned()])
        }
        Op::Mkdir(path) => {
            make(nodes, path);
            Ok(vec!["OK\0".to_owned()])
        }
        Op::Rm(path) => {
            let parent = path::parent(path);
            if parent != "/" && !nodes.contains_key(parent) {
                return Err(Errno::ENOENT);
            }
            nodes.retain(|node, _| path::depth_below(node, path).is_none());
            Ok(vec!["OK\0".to_owned()])
        }
    }
}

/// What the store does.
fn ask(bench: &mut Bench, client: u32, transaction: u32, op: &Op) -> Outcome {
    let (kind, fields): (MessageType, Vec<String>) = match op {
        Op::Read(path) => (Read, vec![path.clone()]),
        Op::List(path) => (Directory, vec![path.clone()]),
        Op::Write(path, value) => (Write, vec![path.clone(), value.to_string()]),
        Op::Mkdir(path) => (Mkdir, vec![path.clone()]),
        Op::Rm(path) => (Rm, vec![path.clone()]),
    };
    let fields: Vec<_> = fields.iter().map(String::as_str).collect();
    let answer = bench.ask_in(client, transaction, kind, &fields)?;
    let answer = String::from_utf8(answer).unwrap();
    if kind != Directory {
        return Ok(vec![answer]);
    }
    let mut names: Vec<_> = answer.split_terminator('\0').map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

/// What payloads are made of.
const PARTS: &[&[u8]] = &[
    b"\0",
    b"/",
    b"a",
    b"/local/domain/1",
    b"@releaseDomain",
    b"n1",
    b"T",
    b"0",
    b"\xff",
    b"T\0",
    b"/a/b\0",
    b"n1\0r2\0",
];

struct Open {
    number: u32,
    base: Nodes,
    own: Nodes,
    done: Vec<(Op, Outcome)>,
    writes: bool,
}

/// The store's tree, as the model has it.
fn tree(bench: &Bench) -> Nodes {
    let mut nodes = Nodes::new();
    bench.store.tree.root().walk("/", &mut |path, node| {
        if path != "/" && path::depth_below(path, "/tool").is_none() {
            nodes.insert(path.to_owned(), String::from_utf8(node.value.to_vec()).unwrap());
        }
    });
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Every answer is the model's; a transaction that commits gave the answers that it would give now, all at once; and one
    /// that does not was disturbed.
    #[test]
    fn transactions_happen_at_one_moment(steps in prop::collection::vec(step(), 1..60)) {
        let mut bench = Bench::new();
        let clients = [bench.tools(), bench.tools(), bench.tools()];
        let mut open: [Option<Open>; 3] = [None, None, None];
        let mut now = Nodes::new();
        for step in steps {
            match step {
                Step::Do(who, op) => {
                    if let Some(open) = &mut open[who] {
                        let before = open.own.clone();
                        let expected = run(&mut open.own, &op);
                        // What changes nothing is as good as a look.
                        let writes = matches!(op, Op::Write(..)) || open.own != before;
                        prop_assert_eq!(&ask(&mut bench, clients[who], open.number, &op), &expected, "{:?}", op);
                        open.done.push((op, expected));
                        open.writes |= writes;
                    } else {
                        let expected = run(&mut now, &op);
                        prop_assert_eq!(ask(&mut bench, clients[who], 0, &op), expected, "{:?}", op);
                    }
                }
                Step::Begin(who) if open[who].is_none() => {
                    let number = bench.begin(clients[who]);
                    let (base, own) = (now.clone(), now.clone());
                    open[who] = Some(Open { number, base, own, done: Vec::new(), writes: false });
                }
                Step::Commit(who) => {
                    let Some(open) = open[who].take() else { continue };
                    match bench.commit(clients[who], open.number) {
                        Ok(()) if open.writes => {
                            for (op, outcome) in &open.done {
                                prop_assert_eq!(&run(&mut now, op), outcome, "{:?} before, at the end", op);
                            }
                        }
                        Ok(()) => {}
                        Err(errno) => {
                            prop_assert_eq!(errno, Errno::EAGAIN);
                            prop_assert!(open.writes, "who only reads is never disturbed");
                            prop_assert!(bench.store.tree.generation > 2 && !(open.base == now && now.is_empty()));
                        }
                    }
                }
                Step::Abort(who) => {
                    let Some(open) = open[who].take() else { continue };
                    bench.ask_in(clients[who], open.number, TransactionEnd, &["F"]).unwrap();
                }
                Step::Begin(_) => {}
            }
            prop_assert_eq!(&tree(&bench), &now);
        }
        prop_assert_eq!(bench.store.check(), Ok(()));
    }

    /// Whatever a domain sends, it gets one answer, and the store stays sound, within the domain's limits.
    #[test]
    fn any_bytes_get_an_answer(
        messages in prop::collection::vec(
            (0u32..25, 0u32..3, prop::collection::vec(prop::sample::select(PARTS), 0..6)),
            0..30,
        ),
        from_tools: bool,
    ) {
        let mut bench = Bench::new();
        let domain = bench.domain(1);
        let client = if from_tools { bench.tools() } else { domain };
        for (kind, transaction, parts) in messages {
            let _ = bench.send(client, transaction, kind, parts.concat());
        }
        prop_assert_eq!(bench.store.check(), Ok(()));
        let usage = bench.store.tree.usage();
        prop_assert!(usage.iter().all(|(id, (nodes, _))| id.raw() == 0 || *nodes <= 1000));
        prop_assert_eq!(bench.ok(client, GetDomainPath, &["1"]), b"/local/domain/1\0");
    }
}
