//! `xen-init-dom0`: what XenStore and libxl must know of dom0 before anything else, written once after each boot.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use pv_abi::domid::DomId;

use crate::privcmd::Privcmd;
use crate::userdata::{Kind, UserData};
use crate::uuid::Uuid;
use crate::xenstore::{Client, Nodes};

/// dom0's configuration, as libxl keeps one of every domain: nothing is known of it but its type.
const STUB: &str = r#"{
    "c_info": {
        "type": "pvh"
    },
    "b_info": {
        "sched_params": {

        },
        "type.pvh": {

        },
        "arch_arm": {

        },
        "arch_x86": {

        }
    }
}
"#;
/// Numbers of domains that are not to be used again soon: of the boot before.
const HISTORY: &str = "/run/xen/domid-history";

/// The program: its arguments, of which the only one is dom0's UUID; its status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().skip(1).collect();
    match run(&arguments) {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("xen-init-dom0: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<&'static str> {
    let uuid = match arguments {
        [] => None,
        [uuid] => Some(uuid.to_string_lossy().parse().with_context(|| format!("{}", uuid.display()))?),
        _ => bail!("too many arguments (usage: xen-init-dom0 [UUID])"),
    };
    set_up(&Client::connect()?, &Privcmd::open()?, uuid)
}

/// Sets dom0 up, unless it is. What was done.
///
/// # Errors
/// XenStore, the hypervisor or a file refuses.
pub fn set_up(client: &Client, hypervisor: &Privcmd, uuid: Option<Uuid>) -> Result<&'static str> {
    let home = client.domain_path(DomId::DOM0)?;
    if client.exists(&format!("{home}/domid"))? && client.exists(&format!("{home}/name"))? {
        return Ok("Dom0 is already set up");
    }
    if let Some(uuid) = uuid.filter(|uuid| !uuid.is_nil()) {
        hypervisor.set_handle(DomId::DOM0, uuid.0)?;
    }
    UserData::new(DomId::DOM0, uuid.unwrap_or_default()).write(Kind::LibxlJson, STUB)?;
    match std::fs::remove_file(HISTORY) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(HISTORY),
        _ => {}
    }
    let pools = hypervisor.pools()?;
    client.transaction(|nodes| -> Result<()> {
        nodes.write(&format!("{home}/domid"), "0")?;
        nodes.write(&format!("{home}/name"), "Domain-0")?;
        for pool in &pools {
            nodes.write(&format!("/local/pool/{}/name", pool.id), format!("Pool-{}", pool.id))?;
        }
        Ok(())
    })?;
    Ok("Done setting up Dom0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_is_json_and_bad_arguments_are_named() {
        assert!(serde_json::from_str::<serde_json::Value>(STUB).is_ok());
        assert!(format!("{:#}", run(&["no-uuid".into()]).unwrap_err()).starts_with("no-uuid: not a UUID"));
        assert!(run(&["a".into(), "b".into()]).unwrap_err().to_string().starts_with("too many"));
    }
}
