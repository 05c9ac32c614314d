//! `xencommons` with daemons that are scripts: who died is there again, who was stopped stays away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What stands for each of the daemons: says that it is ready, and lives until it is ended.
const DAEMON: &str = r#"#!/bin/sh
for option; do case $option in --pid-file=*) file=${option#*=} ;; esac; done
[ ! -e "${0%/*}/refuse" ] || { echo "cannot start" >&2; exit 1; }
if [ -n "$NACELLE_DAEMON" ]; then
    trap 'rm -f "$file"; exit 0' TERM
    echo $$ >"$file"
    echo ready
    exec >/dev/null 2>&1
    while :; do sleep 0.05; done
fi
NACELLE_DAEMON=1 "$0" "$@" >/dev/null 2>&1 &
"#;

struct Dom0(PathBuf);

impl Dom0 {
    fn new() -> Self {
        let root = std::env::temp_dir().join(format!("nacelle-xencommons-{}", std::process::id()));
        fs::create_dir_all(root.join("bin")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/dom0/usr/bin/xencommons");
        let there = |path: &str| format!("{}{path}", root.display());
        let mut text = fs::read_to_string(source).unwrap();
        for path in ["/proc/xen/capabilities", "/etc/default/xencommons", "/run/xen", "/var/l"] {
            text = text.replace(path, &there(path));
        }
        let dom0 = Self(root);
        for directory in ["proc/xen", "run/xen", "var/log/xen"] {
            fs::create_dir_all(dom0.0.join(directory)).unwrap();
        }
        fs::write(dom0.0.join("proc/xen/capabilities"), "control_d\n").unwrap();
        let init = "#!/bin/sh\n".to_owned();
        let daemon = DAEMON.to_owned();
        for (name, text) in [
            ("xencommons", &text),
            ("xen-init-dom0", &init),
            ("usleep", &"#!/bin/sh\nsleep 0.1\n".to_owned()),
            ("xenstored", &daemon),
            ("xenconsoled", &daemon),
            ("xenmemd", &daemon),
        ] {
            let path = dom0.0.join("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        dom0
    }

    fn run(&self, what: &str) -> Output {
        let path = format!("{}:{}", self.0.join("bin").display(), std::env::var("PATH").unwrap());
        Command::new(self.0.join("bin/xencommons")).arg(what).env("PATH", path).output().unwrap()
    }

    fn pid(&self, name: &str) -> Option<u32> {
        let text = fs::read_to_string(self.0.join(format!("run/xen/{name}.pid"))).ok()?;
        let pid = text.trim().parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    fn pid_soon(&self, name: &str, is_it: impl Fn(Option<u32>) -> bool) -> Option<u32> {
        let start = Instant::now();
        while !is_it(self.pid(name)) {
            assert!(start.elapsed() < Duration::from_secs(20), "{name}: {:?}", self.pid(name));
            sleep(Duration::from_millis(20));
        }
        self.pid(name)
    }
}

impl Drop for Dom0 {
    fn drop(&mut self) {
        self.run("stop");
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn xenmemd_that_dies_is_there_again_and_one_that_is_stopped_is_not() {
    let dom0 = Dom0::new();
    let started = dom0.run("start");
    assert!(started.status.success(), "{started:?}");
    let first = dom0.pid_soon("xenmemd", |pid| pid.is_some()).unwrap();
    // Root may protect them.
    let may = Command::new("sh").args(["-c", "echo -900 >/proc/self/oom_score_adj"]).output().unwrap();
    if may.status.success() {
        for pid in [first, dom0.pid("xenstored").unwrap()] {
            let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            assert_eq!(score, "-900\n");
        }
    }
    kill("-9", first);
    let second = dom0.pid_soon("xenmemd", |pid| pid.is_some_and(|pid| pid != first)).unwrap();
    let log = || fs::read_to_string(dom0.0.join("var/log/xen/xencommons.log")).unwrap();
    assert!(log().contains("xenmemd ended with status 137; it is started again in 1 s"), "{}", log());
    assert!(dom0.run("status").status.success());

    // One that cannot start is tried again, later each time; a user need not wait for that.
    fs::write(dom0.0.join("bin/refuse"), "").unwrap();
    kill("-9", second);
    let start = Instant::now();
    while !log().contains("status 1; it is started again in 4 s") {
        assert!(start.elapsed() < Duration::from_secs(20), "{}", log());
        sleep(Duration::from_millis(20));
    }
    assert!(log().contains("cannot start"), "its own reason: {}", log());
    let status = String::from_utf8(dom0.run("status").stdout).unwrap();
    assert!(
        status.contains("xenmemd has died; `xencommons start` starts it again, or does its watcher soon"),
        "{status}"
    );
    let refused = dom0.run("start");
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("xenmemd does not start"), "{refused:?}");
    assert_eq!(dom0.pid("xenmemd-watch"), None);
    fs::remove_file(dom0.0.join("bin/refuse")).unwrap();
    assert!(dom0.run("start").status.success());
    let (third, watcher) = (dom0.pid("xenmemd"), dom0.pid("xenmemd-watch"));
    assert!(third.is_some() && watcher.is_some());

    // A second start changes nothing, and what is stopped stays away.
    assert!(dom0.run("start").status.success());
    assert_eq!((dom0.pid("xenmemd"), dom0.pid("xenmemd-watch")), (third, watcher));
    assert!(dom0.run("stop").status.success());
    sleep(Duration::from_secs(2));
    assert_eq!((dom0.pid("xenmemd"), dom0.pid("xenmemd-watch")), (None, None));
}
