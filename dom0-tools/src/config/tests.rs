//! Whole configurations, and what libxl's JSON makes of them.

use super::*;

/// `xl create -n` of Debian's xl 4.17 prints this for the file below, on Arm with two CPUs.
const DEBIANS: &str = include_str!("tests/debian.json");

const FILE: &str = include_str!("tests/all.cfg");

fn failure(text: &str) -> Vec<String> {
    parse(text, "f").unwrap_err().0.iter().map(ToString::to_string).collect()
}

fn minimal(more: &str) -> String {
    format!("name='a';kernel='/k';memory=64\n{more}\n")
}

fn warnings(more: &str) -> Vec<String> {
    let text = minimal(more);
    let (_, warnings) = read(&[Source::file("f", &text)]).unwrap();
    warnings.iter().map(|warning| warning.to_string().lines().next().unwrap_or("").to_owned()).collect()
}

fn errors(more: &str) -> String {
    let complaints = failure(&minimal(more));
    complaints.iter().map(|complaint| complaint.lines().next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

#[test]
fn json_is_debians() {
    let config = parse(FILE, "all.cfg").unwrap();
    let expected: serde_json::Value = serde_json::from_str(DEBIANS).unwrap();
    let ours = serde_json::to_string_pretty(&config.to_libxl(2)).unwrap();
    assert_eq!(ours, serde_json::to_string_pretty(&expected).unwrap());
}

#[test]
fn little_is_needed() {
    let config = parse("name='a'\nkernel='/k'\nmemory=64", "f").unwrap();
    assert_eq!(
        (config.memory_kib, config.maxmem_kib, config.vcpus, config.maxvcpus),
        (64 << 10, 64 << 10, 1, 1)
    );
    assert_eq!((config.on_poweroff, config.on_reboot), (Action::Destroy, Action::Restart));
    assert_eq!((config.cmdline, config.uuid, config.cpus), (None, None, Affinity::Any));
    assert_eq!(
        failure(""),
        [
            "error: there is no 'name'",
            "error: there is no 'kernel': what is to boot?",
            "warning: there is no 'memory': it is 32 MiB, or 'maxmem' if that is given",
        ]
    );
}

#[test]
fn the_command_line_wins() {
    let file = minimal("vcpus=2\nextra='x'");
    let sources = [Source::file("f", &file), Source::argument("memory=128"), Source::argument("name=b")];
    let (config, warnings) = read(&sources).unwrap();
    assert_eq!((config.name.as_str(), config.memory_kib, config.vcpus), ("b", 128 << 10, 2));
    assert_eq!(warnings, []);
    let sources = [Source::file("f", &file), Source::argument("memory=lots")];
    let Diagnostics(complaints) = read(&sources).unwrap_err();
    assert_eq!(
        complaints[0].to_string(),
        "command line:1:8: error: 'memory' is a whole number, not 'lots'\n    memory=lots\n           ^~~~"
    );
}

#[test]
fn a_typo_is_shown_with_its_line() {
    assert_eq!(
        failure("name = 'a'\nkernel='/k'\n  memroy = 512\n"),
        [
            "f:3:3: error: there is no key 'memroy'; did you mean 'memory'?\n      memroy = 512\n      ^~~~~~",
            "warning: there is no 'memory': it is 32 MiB, or 'maxmem' if that is given",
        ]
    );
}

#[test]
fn keys_that_are_not_served_are_named() {
    assert_eq!(warnings("hap=1"), ["f:2:1: warning: 'hap' is ignored: it has no meaning on Arm"]);
    assert_eq!(warnings("hap=0;pci=[];vnc=0"), [""; 0]);
    assert_eq!(
        warnings("seclabel='x'"),
        ["f:2:1: warning: 'seclabel' is ignored: there are no security labels"]
    );
    assert_eq!(warnings("colour='red'"), ["f:2:1: warning: 'colour' is ignored: there is no such key"]);
    assert_eq!(warnings("type='pv'"), ["f:2:6: warning: type 'pv' is taken for 'pvh', as xl does on Arm"]);
    assert_eq!(
        errors("pci=['0:1.0']"),
        "f:2:1: error: 'pci' cannot be served: no device of the host can be given to a domain"
    );
    assert!(errors("type='hvm'").contains("no fully emulated guests"));
    assert!(errors("bootloader='pygrub'").contains("name the kernel with 'kernel'"));
    assert!(errors("tee='optee'").contains("no 'optee'"));
}

#[test]
fn types_and_ranges_are_named() {
    for (more, expected) in [
        ("vcpus='many'", "f:2:7: error: 'vcpus' is a whole number, not 'many'"),
        ("vcpus=0", "f:2:7: error: 'vcpus' is from 1 to 128, not 0"),
        ("vcpus=4\nmaxvcpus=2", "f:3:10: error: 'maxvcpus' (2) is below 'vcpus' (4)"),
        ("memory=[1]", "f:2:8: error: 'memory' is one value, no list"),
        ("memory=99999999", "f:2:8: error: 'memory' is from 1 to 1043456, not 99999999"),
        ("disk='a'", "f:2:6: error: 'disk' is a list: [ '…', '…' ]"),
        ("disk=[['a']]", "f:2:7: error: each entry of 'disk' is one value, no list"),
        ("disk=['/a,raw,xvda,\"']", "f:2:7: error: '\"' is no access to a disk: r, ro, w or rw"),
        ("vif=['brdge=a']", "f:2:6: error: a vif has no parameter 'brdge'; did you mean 'bridge'?"),
        (
            "uuid='1'",
            "f:2:6: error: '1' is not a UUID: it has 32 hexadecimal digits, as in \
            6c5f2b0e-9f0d-4d3c-8a51-0f3f1a2b3c4d",
        ),
        ("cpus='0-'", "f:2:6: error: 'cpus': '0-' is neither a CPU, nor a range of CPUs, nor 'all'"),
        ("cpus='all,^all'", "f:2:6: error: 'cpus': '^' and 'all' do not go together"),
        ("cpus=['0','x']", "f:2:11: error: 'cpus': 'x' is neither a CPU, nor a range of CPUs, nor 'all'"),
        (
            "on_crash='restrt'",
            "f:2:10: error: 'on_crash' is destroy or restart or rename-restart or preserve or \
            coredump-destroy or coredump-restart or soft-reset, not 'restrt'; did you mean 'restart'?",
        ),
        (
            "gic_version='v4'",
            "f:2:13: error: 'gic_version' is default or v2 or v3, not 'v4'; did you mean 'v2'?",
        ),
        ("name='a/b'", "f:2:6: error: a name has 1 to 255 characters, none of them '/'"),
        ("name=''", "f:2:6: error: a name has 1 to 255 characters, none of them '/'"),
        ("cap=65536", "f:2:5: error: 'cap' is from 0 to 65535, not 65536"),
        ("acpi='yes'", "f:2:6: error: 'acpi' is 0 or 1, not 'yes'"),
        ("extra=['a']\nextra+='b'", "f:3:8: error: 'extra': a list and text cannot be added"),
    ] {
        assert_eq!(errors(more), expected, "{more}");
    }
}

#[test]
fn what_contradicts_itself_is_said() {
    assert_eq!(
        warnings("maxmem=32"),
        ["f:2:8: warning: 'maxmem' is below 'memory': the domain gets no more than 'maxmem'"]
    );
    assert_eq!(warnings("cmdline='a'\nextra='b'"), ["f:3:7: warning: ignored, since there is a 'cmdline'"]);
    assert_eq!(
        warnings("name='7'"),
        ["f:2:6: warning: a name of digits alone: commands will take it for a domain's number"]
    );
}

#[test]
fn affinities_become_sets() {
    let sets = |more: &str| -> Vec<Vec<u32>> {
        let config = parse(&minimal(&format!("maxvcpus=2\n{more}")), "f").unwrap();
        config.cpus.sets(config.maxvcpus, 4).iter().map(|set| set.iter().collect()).collect()
    };
    assert_eq!(sets(""), [[0u32; 0]; 0]);
    assert_eq!(sets("cpus='all,^1'"), [[0, 2, 3], [0, 2, 3]]);
    assert_eq!(sets("cpus=3"), [[3], [3]]);
    assert_eq!(sets("cpus=['3',1,'2']"), [[3], [1]]);
    assert_eq!(sets("cpus=['2']"), [[2]]);
}

#[test]
fn dynamic_memory_is_asked_for_by_any_of_its_keys() {
    let balance = |more: &str| parse(&minimal(more), "f").unwrap().balance;
    assert!(!balance("").is_on && !balance("memory_policy=0\nmemory_min=32").is_on);
    for key in ["memory_min=32", "memory_buffer=2000", "memory_weight=0", "memory_policy=1"] {
        assert!(balance(key).is_on, "{key}");
    }
    let all = balance("memory_min=48\nmemory_buffer=5\nmemory_weight=10000");
    assert_eq!((all.minimum_kib, all.buffer, all.weight), (Some(48 << 10), 5, 10_000));
    let config = parse(&minimal("memory_policy=1"), "f").unwrap();
    assert_eq!(config.memory_settings().minimum_kib(), 64 << 10);
}

#[test]
fn dynamic_memory_that_cannot_be_is_refused_with_its_place() {
    assert_eq!(errors("memory_buffer=4"), "f:2:15: error: 'memory_buffer' is from 5 to 2000, not 4");
    assert_eq!(errors("memory_weight=10001"), "f:2:15: error: 'memory_weight' is from 0 to 10000, not 10001");
    assert_eq!(errors("memory_policy=2"), "f:2:15: error: 'memory_policy' is from 0 to 1, not 2");
    let above = errors("memory_min=65");
    assert!(above.starts_with("f:2:12: error: memory_min=65 MiB is more than memory=64 MiB"), "{above}");
    let text = minimal("memory_min=32\nmaxmem=4096");
    let sources = [Source::file("f", &text)];
    assert!(read_on(&sources, Some(4 << 20)).is_ok());
    let Diagnostics(beyond) = read_on(&sources, Some(3 << 20)).unwrap_err();
    let beyond = beyond[0].to_string();
    assert!(beyond.starts_with("f:3:8: error: maxmem=4096 MiB is more than this host has"), "{beyond}");
    assert!(beyond.ends_with("\n    maxmem=4096\n           ^~~~"), "{beyond}");
    // One that is not balanced may have what the host has not, as ever.
    let text = minimal("maxmem=4096");
    assert!(read_on(&[Source::file("f", &text)], Some(3 << 20)).is_ok());
}
