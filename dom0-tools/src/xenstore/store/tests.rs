//! Requests and their answers, as the protocol has them.

use pv_abi::Errno::{self, *};
use pv_abi::domid::DomId;
use pv_abi::xs_wire::MessageType::*;

use super::domains::Condition;
use super::testing::Bench;

fn pair(path: &str, token: &str) -> (String, String) {
    (path.to_owned(), token.to_owned())
}

#[test]
fn nodes_are_made_read_listed_and_removed() {
    let mut b = Bench::new();
    let c = b.tools();
    assert_eq!(b.ok(c, Directory, &["/"]), b"tool\0");
    assert_eq!(b.ask(c, Read, &["/a/b"]), Err(ENOENT));
    b.ok(c, Write, &["/a/b", "value"]);
    assert_eq!(b.ok(c, Read, &["/a/b"]), b"value");
    assert_eq!(b.ok(c, Read, &["/a"]), b"");
    b.ok(c, Mkdir, &["/a/b"]);
    assert_eq!(b.ok(c, Read, &["/a/b"]), b"value");
    for name in ["z", "10", "9", "m"] {
        b.ok(c, Mkdir, &[&format!("/a/{name}")]);
    }
    assert_eq!(b.ok(c, Directory, &["/a"]), b"b\0z\x0010\x009\0m\0", "as they were made");
    b.ok(c, Rm, &["/a/b"]);
    b.ok(c, Rm, &["/a/b"]);
    assert_eq!(b.ask(c, Rm, &["/x/y"]), Err(ENOENT));
    assert_eq!(b.ask(c, Rm, &["/"]), Err(EINVAL));
    assert_eq!(b.ask(c, Read, &["/a/b"]), Err(ENOENT));
    b.ok(c, Write, &["relative", "of dom0"]);
    assert_eq!(b.ok(c, Read, &["/local/domain/0/relative"]), b"of dom0");
    assert_eq!(b.store.check(), Ok(()));
}

#[test]
fn bad_requests_have_their_errors() {
    let mut b = Bench::new();
    let (c, g) = (b.tools(), b.domain(1));
    for path in ["", "/a/", "//", "/a b", "/%", "/a\u{e9}"] {
        assert_eq!(b.ask(c, Read, &[path]), Err(EINVAL), "{path}");
        assert_eq!(b.ask(c, Write, &[path, "x"]), Err(EINVAL), "{path}");
    }
    assert_eq!(b.send(c, 0, Read.raw(), b"/tool".to_vec()), Err(EINVAL), "no zero byte at the end");
    assert_eq!(b.send(c, 0, Read.raw(), b"/tool\0\0".to_vec()), Err(EINVAL));
    assert_eq!(b.send(c, 0, Write.raw(), b"/tool".to_vec()), Err(EINVAL));
    for kind in [15, 16, 20, 23, 24, 0xffff, u32::MAX] {
        assert_eq!(b.send(c, 0, kind, Vec::new()), Err(ENOSYS), "{kind}");
    }
    assert_eq!(b.ask_in(c, 9, Read, &["/tool"]), Err(ENOENT), "no such transaction");
    assert_eq!(b.ask_in(c, 9, TransactionEnd, &["T"]), Err(ENOENT));
    assert_eq!(b.ask(c, TransactionEnd, &["T"]), Err(ENOENT));
    let t = b.begin(c);
    assert_eq!(b.ask_in(c, t, TransactionStart, &[""]), Err(EBUSY));
    assert_eq!(b.ask_in(c, t, TransactionEnd, &["X"]), Err(EINVAL));
    b.commit(c, t).unwrap();
    for kind in [Control, Introduce, Release, IsDomainIntroduced, Resume, SetTarget] {
        assert_eq!(b.ask(g, kind, &["1", "1", "1"]), Err(EACCES), "{kind:?}");
    }
    for perms in [&["/tool"][..], &["/tool", "x0"], &["/tool", "r"], &["/tool", ""]] {
        assert_eq!(b.ask(c, SetPerms, perms), Err(EINVAL), "{perms:?}");
    }
}

#[test]
fn permissions_are_kept() {
    let mut b = Bench::new();
    let (c, one, two) = (b.tools(), b.domain(1), b.domain(2));
    b.ok(one, Write, &["data", "mine"]);
    assert_eq!(b.ok(c, GetPerms, &["/local/domain/1/data"]), b"n1\0", "who makes it, owns it");
    assert_eq!(b.ask(two, Read, &["/local/domain/1/data"]), Err(EACCES));
    assert_eq!(b.ask(two, Read, &["/local/domain/1/nothing"]), Err(EACCES), "not told whether it is there");
    assert_eq!(b.ask(two, Write, &["/x", "1"]), Err(EACCES));
    b.ok(one, SetPerms, &["data", "n1", "r2"]);
    assert_eq!(b.ok(two, Read, &["/local/domain/1/data"]), b"mine");
    assert_eq!(b.ask(two, Write, &["/local/domain/1/data", "x"]), Err(EACCES));
    assert_eq!(b.ask(two, SetPerms, &["/local/domain/1/data", "b1"]), Err(EACCES));
    assert_eq!(b.ask(one, SetPerms, &["data", "n2"]), Err(EPERM), "nobody gives a node away");
    b.ok(c, SetPerms, &["/local/domain/1/data", "b0", "n2"]);
    b.ok(one, Write, &["data", "the first entry is for the rest"]);
    assert_eq!(b.ask(two, Read, &["/local/domain/1/data"]), Err(EACCES));
    b.ok(c, SetTarget, &["2", "1"]);
    b.ok(two, Write, &["/local/domain/1/by-target", "x"]);
    assert_eq!(b.ok(c, GetPerms, &["/local/domain/1/by-target"]), b"n2\0");
    assert_eq!(b.store.check(), Ok(()));
}

#[test]
fn transactions_see_their_own_world() {
    let mut b = Bench::new();
    let (c, d) = (b.tools(), b.tools());
    b.ok(c, Write, &["/a", "1"]);
    let t = b.begin(c);
    b.ask_in(c, t, Write, &["/a", "2"]).unwrap();
    b.ask_in(c, t, Write, &["/new/node", "x"]).unwrap();
    assert_eq!(b.ask_in(c, t, Read, &["/a"]).unwrap(), b"2");
    assert_eq!(b.ok(d, Read, &["/a"]), b"1");
    assert_eq!(b.ask(d, Read, &["/new"]), Err(ENOENT));
    b.commit(c, t).unwrap();
    assert_eq!(b.ok(d, Read, &["/new/node"]), b"x");
    let t = b.begin(c);
    b.ask_in(c, t, Rm, &["/new"]).unwrap();
    b.ask_in(c, t, TransactionEnd, &["F"]).unwrap();
    assert_eq!(b.ok(d, Read, &["/new/node"]), b"x");
    assert_eq!(b.ask_in(d, t, Read, &["/a"]), Err(ENOENT), "another client's transaction");
}

#[test]
fn only_conflicts_are_conflicts() {
    let mut b = Bench::new();
    let (c, d) = (b.tools(), b.tools());
    b.ok(c, Write, &["/dir/a", "1"]);
    b.ok(c, Write, &["/dir/b", "1"]);
    let mut with = |inside: &[(super::MessageType, &[&str])], outside: &[(super::MessageType, &[&str])]| {
        let t = b.begin(c);
        for (kind, fields) in inside {
            let _ = b.ask_in(c, t, *kind, fields);
        }
        for (kind, fields) in outside {
            b.ok(d, *kind, fields);
        }
        b.commit(c, t).map_err(|errno| assert_eq!(errno, EAGAIN)).is_err()
    };
    let write: (_, &[&str]) = (Write, &["/dir/a", "2"]);
    assert!(with(&[write], &[write]));
    assert!(with(&[(Read, &["/dir/b"]), write], &[(Write, &["/dir/b", "3"])]));
    assert!(!with(&[(Read, &["/dir/b"])], &[(Write, &["/dir/b", "3"])]), "who only reads has seen one state");
    assert!(!with(&[write], &[(Write, &["/dir/b", "4"])]));
    assert!(!with(&[(Write, &["/dir/new1", ""])], &[(Write, &["/dir/new2", ""])]), "siblings");
    assert!(with(&[(Directory, &["/dir"]), write], &[(Write, &["/dir/new3", ""])]));
    assert!(with(&[(Read, &["/dir/new4"]), write], &[(Write, &["/dir/new4", ""])]), "was not there");
    assert!(with(&[(Write, &["/dir/new5/x", ""])], &[(Mkdir, &["/dir/new5"])]), "would have another parent");
    assert!(with(&[(Write, &["/dir/new6", ""])], &[(Rm, &["/dir"]), (Mkdir, &["/dir"])]));
    assert!(!with(&[], &[(Rm, &["/dir"])]));
}

#[test]
fn watches_tell_what_changed() {
    let mut b = Bench::new();
    let (c, d, g) = (b.tools(), b.tools(), b.domain(1));
    b.ok(c, Watch, &["/a", "t"]);
    assert_eq!(b.events(c), [pair("/a", "t")], "at once");
    assert_eq!(b.ask(c, Watch, &["/a", "t"]), Err(EEXIST));
    b.ok(d, Write, &["/a/b/c", "1"]);
    assert_eq!(b.events(c), [pair("/a", "t"), pair("/a/b", "t"), pair("/a/b/c", "t")]);
    b.ok(c, Watch, &["/a/b", "deep"]);
    b.ok(c, Watch, &["/a", "flat", "0"]);
    b.events(c);
    b.ok(d, Rm, &["/a"]);
    assert_eq!(b.events(c), [pair("/a/b", "deep"), pair("/a", "t"), pair("/a", "flat")]);
    b.ok(d, Write, &["/a/b", ""]);
    b.events(c);
    let t = b.begin(d);
    b.ask_in(d, t, Write, &["/a/b", "x"]).unwrap();
    assert_eq!(b.events(c), []);
    b.commit(d, t).unwrap();
    assert_eq!(b.events(c), [pair("/a/b", "t"), pair("/a/b", "deep")]);
    b.ok(c, Unwatch, &["/a", "t"]);
    assert_eq!(b.ask(c, Unwatch, &["/a", "t"]), Err(ENOENT));
    b.ok(c, ResetWatches, &[""]);
    b.ok(d, Write, &["/a/b", "y"]);
    assert_eq!(b.events(c), []);
    b.ok(g, Watch, &["data", "mine"]);
    b.ok(g, Watch, &["/", "all"]);
    assert_eq!(b.events(g), [pair("data", "mine"), pair("/", "all")]);
    b.ok(g, Write, &["data/x", "1"]);
    let expected = [pair("data", "mine"), pair("/local/domain/1/data", "all"), pair("data/x", "mine")];
    assert_eq!(b.events(g)[..3], expected);
    b.ok(d, Write, &["/secret", "1"]);
    assert_eq!(b.events(g), [], "it may not read that");
    assert_eq!(b.ask(c, Watch, &["/a b", "t"]), Err(EINVAL));
    assert_eq!(b.store.check(), Ok(()));
}

#[test]
fn domains_come_and_go() {
    let mut b = Bench::new();
    let c = b.tools();
    b.ok(c, Watch, &["@introduceDomain", "in"]);
    b.ok(c, Watch, &["@releaseDomain", "out"]);
    b.ok(c, Watch, &["@releaseDomain", "who", "1"]);
    b.ok(c, Watch, &["@releaseDomain/2", "two"]);
    b.events(c);
    assert_eq!(b.ok(c, IsDomainIntroduced, &["1"]), b"F\0");
    let (one, two) = (b.domain(1), b.domain(2));
    assert_eq!(b.events(c), [pair("@introduceDomain", "in"), pair("@introduceDomain", "in")]);
    assert_eq!(b.ok(c, IsDomainIntroduced, &["1"]), b"T\0");
    assert_eq!(b.ok(c, GetDomainPath, &["1"]), b"/local/domain/1\0");
    b.ok(two, Write, &["for-one", "x"]);
    b.ok(two, SetPerms, &["for-one", "n2", "r1", "b3"]);
    b.ok(c, Write, &["/backend/1", "x"]);
    b.ok(c, SetPerms, &["/backend/1", "r0", "b1"]);
    b.events(c);
    let at =
        |dead: u16, condition| move |id: DomId| if id.raw() == dead { condition } else { Condition::Alive };
    b.store.check_domains(at(2, Condition::ShutDown), &mut b.world);
    let told =
        [pair("@releaseDomain", "out"), pair("@releaseDomain/2", "who"), pair("@releaseDomain/2", "two")];
    assert_eq!(b.events(c), told);
    b.store.check_domains(at(2, Condition::ShutDown), &mut b.world);
    assert_eq!(b.events(c), [], "told once");
    b.ok(c, Resume, &["2"]);
    b.store.check_domains(at(2, Condition::ShutDown), &mut b.world);
    assert_eq!(b.events(c), told);
    b.store.check_domains(at(1, Condition::Gone), &mut b.world);
    assert_eq!(b.events(c), told[..2].iter().map(|(p, t)| pair(&p.replace('2', "1"), t)).collect::<Vec<_>>());
    assert!(b.store.client(one).is_none() && b.world.connected.contains(&two));
    assert_eq!(b.ask(c, Read, &["/local/domain/1"]), Err(ENOENT), "what it owned went with it");
    assert_eq!(b.ok(c, GetPerms, &["/local/domain/2/for-one"]), b"n2\0b3\0");
    assert_eq!(b.ok(c, GetPerms, &["/backend/1"]), b"r0\0");
    b.ok(c, Release, &["2"]);
    assert!(b.world.connected.is_empty());
    assert_eq!(b.ask(c, Release, &["2"]), Err(ENOENT));
    assert_eq!(b.ask(c, Release, &["0"]), Err(EINVAL));
    for bad in [["0", "1", "1"], ["200", "1", "1"], ["1", "1", "0"], ["1", "x", "1"], ["-1", "1", "1"]] {
        assert_eq!(b.ask(c, Introduce, &bad), Err(EINVAL), "{bad:?}");
    }
    b.ok(c, Introduce, &["3", "-5", "7"]);
    assert_eq!(b.store.check(), Ok(()));
    b.ok(c, SetPerms, &["/", "n3"]);
    b.ok(c, Release, &["3"]);
    assert_eq!(b.ok(c, GetPerms, &["/"]), b"n0\0", "the root stays");
    assert_eq!(b.store.check(), Ok(()));
}

#[test]
fn special_events_have_permissions() {
    let mut b = Bench::new();
    let (c, g) = (b.tools(), b.domain(1));
    b.ok(g, Watch, &["@releaseDomain", "t"]);
    b.events(g);
    b.domain(2);
    b.ok(c, Release, &["2"]);
    assert_eq!(b.events(g), []);
    assert_eq!(b.ask(g, SetPerms, &["@releaseDomain", "r1"]), Err(EACCES));
    assert_eq!(b.ask(c, SetPerms, &["@other", "r1"]), Err(EINVAL));
    b.ok(c, SetPerms, &["@releaseDomain", "n0", "r1"]);
    b.domain(2);
    b.ok(c, Release, &["2"]);
    assert_eq!(b.events(g), [pair("@releaseDomain", "t")]);
}

/// How often `ask` succeeds, at most 5000 times, until it fails with `errno`.
fn until(errno: Errno, mut ask: impl FnMut(usize) -> Result<Vec<u8>, Errno>) -> usize {
    let (count, found) = (0..5000).find_map(|n| Some((n, ask(n).err()?))).expect("a limit");
    assert_eq!(found, errno);
    count
}

#[test]
fn a_domain_has_limits_and_dom0_has_none() {
    let mut b = Bench::new();
    let (c, g) = (b.tools(), b.domain(1));
    let nodes = until(ENOSPC, |n| b.ask(g, Write, &[&format!("n/{n}"), ""]));
    assert_eq!(nodes, 998, "with its home and n");
    assert_eq!(b.ask(g, Mkdir, &["n/x/y"]), Err(ENOSPC));
    b.ok(g, Write, &["n/7", "changing is free"]);
    let t = b.begin(g);
    assert_eq!(b.ask_in(g, t, Mkdir, &["n/x"]), Err(ENOSPC));
    b.ask_in(g, t, Rm, &["n/1"]).unwrap();
    b.ask_in(g, t, Mkdir, &["n/x"]).unwrap();
    b.commit(g, t).unwrap();
    assert_eq!(b.ask(g, Write, &["n/7", &"x".repeat(2048)]), Err(ENOSPC));
    assert_eq!(b.ask(g, SetPerms, &["n/7", "n1", "r2", "r3", "r4", "r5", "r6"]), Err(ENOSPC));
    let watches = until(E2BIG, |n| b.ask(g, Watch, &["n/7", &n.to_string()]));
    assert_eq!(watches, 128);
    let started = until(ENOSPC, |_| b.ask(g, TransactionStart, &[""]));
    assert_eq!(started, 10);
    assert_eq!(b.ask(g, Write, &["n/7", "x"]), Ok(b"OK\0".to_vec()));
    for n in 0..2000 {
        b.ok(c, Watch, &["/x", &n.to_string()]);
    }
    let text = String::from_utf8(b.ok(c, Control, &["quota", "1"])).unwrap();
    assert!(
        text.contains("nodes           :     1000\nwatches         :      128\ntransactions    :       10\n")
    );
    b.ok(g, ResetWatches, &[""]);
    let text = String::from_utf8(b.ok(c, Control, &["quota", "1"])).unwrap();
    assert!(text.contains("watches         :        0\ntransactions    :        0\n"), "{text}");
    b.ok(c, Control, &["quota", "set", "nodes", "1001"]);
    b.ok(g, Mkdir, &["n/one-more"]);
    assert_eq!(b.ask(g, Mkdir, &["n/and-another"]), Err(ENOSPC));
    assert_eq!(b.store.check(), Ok(()));
}

#[test]
fn a_domain_cannot_use_up_the_memory() {
    let mut b = Bench::new();
    let (c, g) = (b.tools(), b.domain(1));
    let token = "t".repeat(4000);
    for n in 0..128 {
        let _ = b.ask(g, Watch, &["x", &format!("{n}{token}")]);
    }
    let value = "v".repeat(2000);
    let full = (0..998).find(|n| b.ask(g, Write, &[&format!("n/{n}"), &value]).is_err());
    assert!(full.is_some_and(|n| n > 800));
    assert_eq!(b.ask(g, Write, &["n/1", ""]), Err(ENOSPC), "not even that");
    b.ok(g, Rm, &["n/1"]);
    b.store.messages.iter().for_each(|message| assert!(message.starts_with("domain 1 uses more than")));
    assert_eq!(b.store.messages.len(), 1);
    b.ok(c, Release, &["1"]);
    let report = String::from_utf8(b.ok(c, Control, &["memreport"])).unwrap();
    assert!(!report.contains("domain 1:"), "{report}");
}

#[test]
fn events_that_find_no_room_are_made_up_for() {
    let mut b = Bench::new();
    let (c, g) = (b.tools(), b.domain(1));
    b.ok(g, Watch, &["/local", "t"]);
    b.ok(g, Watch, &["other", "o"]);
    for n in 0..4000 {
        b.ok(c, Write, &[&format!("/local/domain/1/many/{n}"), ""]);
    }
    let waiting = b.store.client(g).unwrap().outbox.bytes();
    assert!(waiting <= super::EVENTS && waiting > super::EVENTS - 100);
    assert!(!b.store.may_ask(g) || waiting < super::EVENTS);
    let first = b.events(g);
    assert!(first.len() < 4000);
    b.store.make_up(g);
    assert_eq!(b.events(g), [pair("/local", "t")]);
    b.store.make_up(g);
    assert_eq!(b.events(g), []);
}

#[test]
fn long_lists_come_in_parts() {
    let mut b = Bench::new();
    let c = b.tools();
    let names: Vec<_> = (0..2000).map(|n| format!("child-{n}")).collect();
    for name in &names {
        b.ok(c, Mkdir, &[&format!("/many/{name}")]);
    }
    assert_eq!(b.ask(c, Directory, &["/many"]), Err(E2BIG));
    let (mut all, mut parts) = (Vec::new(), 0);
    loop {
        let part = b.ok(c, DirectoryPart, &["/many", &all.len().to_string()]);
        assert!(part.len() <= 4096);
        let names = &part[part.iter().position(|&byte| byte == 0).unwrap() + 1..];
        parts += 1;
        let last = names.ends_with(b"\0\0");
        all.extend_from_slice(if last { &names[..names.len() - 1] } else { names });
        if last {
            break;
        }
    }
    assert_eq!(all, names.iter().flat_map(|name| format!("{name}\0").into_bytes()).collect::<Vec<_>>());
    assert!(parts > 5);
    assert!(b.ok(c, DirectoryPart, &["/many", "999999"]).ends_with(b"\0\0"));
    assert_eq!(b.ask(c, DirectoryPart, &["/many", "x"]), Err(EINVAL));
}

#[test]
fn an_old_transaction_of_a_domain_cannot_succeed() {
    let mut b = Bench::new();
    let (c, g) = (b.tools(), b.domain(1));
    let (ours, theirs) = (b.begin(c), b.begin(g));
    for n in 0..super::LONG_AGO + 1 {
        b.ok(c, Write, &["/counter", &n.to_string()]);
    }
    b.ask_in(c, ours, Write, &["/a", ""]).unwrap();
    b.ask_in(g, theirs, Write, &["a", ""]).unwrap();
    assert_eq!(b.commit(c, ours), Ok(()));
    assert_eq!(b.commit(g, theirs), Err(EAGAIN));
}

#[test]
fn a_restart_loses_nothing_that_counts() {
    let mut b = Bench::new();
    b.store.records = Some(Vec::new());
    let (c, g) = (b.tools(), b.domain(5));
    for name in ["z", "a", "10"] {
        b.ok(g, Write, &[&format!("dir/{name}"), name]);
    }
    b.ok(g, SetPerms, &["dir", "r5", "b0"]);
    b.ok(g, Watch, &["dir", "token"]);
    b.ok(g, Watch, &["/local", "gone"]);
    b.ok(g, Unwatch, &["/local", "gone"]);
    b.ok(c, Write, &["/gone/x", ""]);
    b.ok(c, Rm, &["/gone"]);
    b.ok(c, SetPerms, &["@introduceDomain", "n0", "r5"]);
    let (open, done) = (b.begin(g), b.begin(g));
    b.commit(g, done).unwrap();
    b.domain(6);
    b.ok(c, Release, &["6"]);
    let mut bytes = Vec::new();
    for record in b.store.records.take().unwrap() {
        record.encode(&mut bytes);
    }
    let journal = super::record::Record::decode_all(&bytes).unwrap();
    let snapshot = b.store.snapshot();
    for records in [journal, snapshot.clone()] {
        let mut after = Bench::new();
        let former = after.store.restore(records);
        assert_eq!(former.keys().map(|id| id.raw()).collect::<Vec<_>>(), [5]);
        let domain = DomId::new(5);
        let g = after.store.resume_domain(domain, &former[&domain], &mut after.world).unwrap();
        assert_eq!(after.store.snapshot(), snapshot);
        assert_eq!(after.store.check(), Ok(()));
        assert_eq!(after.commit(g, done), Ok(()), "the end that it may not have heard of");
        assert_eq!(after.commit(g, done), Err(ENOENT), "but only once");
        assert_eq!(after.ask_in(g, open, Read, &["dir/a"]).unwrap(), b"a");
        assert_eq!(after.commit(g, open), Err(EAGAIN));
        after.store.make_up(g);
        assert_eq!(after.events(g), [pair("dir", "token")]);
        assert_eq!(after.ok(g, Directory, &["dir"]), b"z\0a\x0010\0");
    }
}
