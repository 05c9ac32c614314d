//! Mutation and property tests: no text makes the parser panic, and what it says of a text is right.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// A configuration with one of everything.
const SEED: &str = r#"# one of everything
name = "g1"; uuid='12345678-1234-1234-1234-123456789abc'
type="pvh"
kernel="/guest/vmlinuz" # the kernel
ramdisk = '/guest/initrd'
memory=256
maxmem=0x400
vcpus=2
maxvcpus=4
cpus="0-3,^2"
cpus_soft=["0","1"]
cpu_weight=512
cap=50
on_crash="preserve"
on_reboot="rename-restart"
gic_version="v3"
vuart="sbsa_uart"
max_grant_frames=16
max_event_channels=0200
root="/dev/xvda1"
extra="a 'b' \x41\101\n"
extra += " c"
vif=[ 'mac=00:16:3e:00:00:01,bridge=xenbr0,rate=1MB/s@20ms',
      '', ]
disk=['/dev/vg/volume,raw,xvda,rw', "format=qcow2,vdev=xvdb,access=ro,target=/a,b"]
disk += [ ',,hdc:cdrom' ]
pci = []
localtime = 1
"#;

/// xorshift64*, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % bound.max(1)
    }
}

/// The seed with a few edits: characters put in, taken out, exchanged; pieces repeated elsewhere.
fn mutant(random: &mut Random) -> String {
    const CHARACTERS: &[char] = &[
        '\'',
        '"',
        '[',
        ']',
        ',',
        ';',
        '\n',
        '\r',
        '=',
        '+',
        '#',
        '\\',
        'x',
        '0',
        '9',
        '-',
        ' ',
        'ä',
        '\0',
        '\u{1f600}',
    ];
    let mut text: Vec<char> = SEED.chars().collect();
    for _ in 0..=random.below(6) {
        if text.is_empty() {
            break;
        }
        let at = random.below(text.len());
        match random.below(5) {
            0 => text.insert(at, CHARACTERS[random.below(CHARACTERS.len())]),
            1 => text[at] = CHARACTERS[random.below(CHARACTERS.len())],
            2 => drop(text.remove(at)),
            3 => text.truncate(at),
            _ => {
                let end = (at + random.below(40)).min(text.len());
                let piece: Vec<char> = text[at..end].to_vec();
                let to = random.below(text.len());
                text.splice(to..to, piece);
            }
        }
    }
    text.into_iter().collect()
}

/// Whatever is said about `text` has a place that exists, and the result keeps its promises.
fn check(text: &str) {
    let complaints = match read(&[Source::file("f", text)]) {
        Ok((config, warnings)) => {
            assert!(config.memory_kib <= config.maxmem_kib && config.vcpus <= config.maxvcpus, "{text}");
            assert!(!config.name.is_empty(), "{text}");
            config.to_libxl(8).to_string();
            warnings
        }
        Err(Diagnostics(complaints)) => {
            assert!(complaints.iter().any(|complaint| complaint.severity == Severity::Error), "{text}");
            complaints
        }
    };
    for complaint in complaints {
        if let Some(Place { line, column, text: quoted, width, .. }) = &complaint.place {
            let found = text.split('\n').nth(line - 1).unwrap();
            assert_eq!(found.trim_end_matches('\r'), quoted, "{text}");
            assert!(column + width <= found.chars().count() + 2, "{complaint}");
        }
        complaint.to_string();
    }
}

#[test]
fn no_mutant_makes_it_panic() {
    let seconds = std::env::var("NACELLE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut count = 0;
    while end.map_or(count < 5000, |end| Instant::now() < end) {
        check(&mutant(&mut random));
        count += 1;
    }
    println!("{count} mutants");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        check(&text);
    }

    #[test]
    fn any_text_can_be_said(name in "[^/\\p{Cc}]{1,60}") {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let text = format!("kernel='/k'\nmemory=1\nname=\"{quoted}\"\n");
        prop_assert_eq!(parse(&text, "f").unwrap().name, name);
    }

    #[test]
    fn an_argument_says_the_same_as_its_line(value in "[^;\\p{Cc}]{0,40}") {
        let argument = format!("extra={value}");
        let rest = "name='a';kernel='/k';memory=1\n";
        let given = read(&[Source::file("f", rest), Source::argument(&argument)]);
        let kept = parse(&format!("{rest}{}", as_line(&argument)), "f");
        match (given, kept) {
            (Ok((given, _)), Ok(kept)) => prop_assert_eq!(given.cmdline, kept.cmdline),
            // Only what could be read is kept.
            (Err(_), _) => {}
            (Ok(_), Err(errors)) => prop_assert!(false, "{}", errors),
        }
    }

    #[test]
    fn any_memory_can_be_asked_for(memory in 1u64..1_000_000, more in 0u64..40_000) {
        let text = format!("name='a';kernel='/k';memory={memory}\nmaxmem={:#x}", memory + more);
        let config = parse(&text, "f").unwrap();
        prop_assert_eq!((config.memory_kib, config.maxmem_kib), (memory << 10, (memory + more) << 10));
    }

    #[test]
    fn a_slip_in_a_key_is_found(index in 0usize..1000, at in 0usize..20) {
        let keys: Vec<&str> = keys::all().filter(|key| key.len() > 5).collect();
        let key = keys[index % keys.len()];
        let mut wrong = key.to_owned();
        wrong.insert(1 + at % (key.len() - 1), 'q');
        let found = parse(&format!("name='a';kernel='/k';memory=1\n{wrong}=1"), "f").unwrap_err().to_string();
        prop_assert!(found.starts_with(&format!("f:2:1: error: there is no key '{wrong}'; did you mean '")), "{}", found);
    }
}
