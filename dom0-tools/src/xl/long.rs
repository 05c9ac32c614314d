//! `xl list -l`: a domain as libxl's JSON: the configuration it was made with, and what has changed since.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::host::{Domain, Host};
use super::memory::Amounts;
use crate::privcmd::CreditParameters;
use crate::userdata::{Kind, UserData};

/// One domain as `xl list -l` has it.
pub(super) fn long(host: &Host, domain: &Domain) -> Result<Value> {
    let kept = UserData::new(domain.id(), domain.uuid()).read(Kind::LibxlJson)?;
    let config = match kept {
        Some(text) => serde_json::from_str(text.trim_end_matches('\0'))
            .with_context(|| format!("the saved configuration of domain {} is no JSON", domain.id().raw()))?,
        None => empty(),
    };
    let is_online = |vcpu: &u32| {
        let node = format!("{}/cpu/{vcpu}/availability", domain.path());
        host.text(&node).is_some_and(|text| text == "online")
    };
    let vcpus = config["b_info"]["max_vcpus"].as_u64().unwrap_or(0);
    let online = (0..u32::try_from(vcpus).unwrap_or(0)).filter(is_online).collect();
    let now = Now {
        memory: Amounts::of(host, &domain.info)?,
        share: host.xen.credit_parameters(domain.id())?,
        online,
    };
    Ok(json!({ "domid": domain.id().raw(), "config": now.merge(config, domain) }))
}

/// A configuration of which nothing is known.
fn empty() -> Value {
    json!({
        "c_info": { "type": "pvh" },
        "b_info": { "sched_params": {}, "type.pvh": {}, "arch_arm": {}, "arch_x86": {} },
    })
}

/// What can have changed.
struct Now {
    memory: Amounts,
    share: CreditParameters,
    online: Vec<u32>,
}

impl Now {
    fn merge(&self, mut config: Value, domain: &Domain) -> Value {
        if let Some(name) = &domain.name {
            config["c_info"]["name"] = json!(name);
        }
        if !domain.uuid().is_nil() {
            config["c_info"]["uuid"] = json!(domain.uuid());
        }
        let mut info = config["b_info"].take();
        if info["avail_vcpus"].is_array() {
            info["avail_vcpus"] = json!(self.online);
        }
        let old = info.as_object().cloned().unwrap_or_default();
        let mut new = serde_json::Map::new();
        // Memory comes before the scheduler's parameters, wherever it was.
        let video = info.get("video_memkb").cloned();
        for (name, value) in old {
            match name.as_str() {
                "max_memkb" | "target_memkb" | "video_memkb" => {}
                "sched_params" => {
                    new.insert("max_memkb".to_owned(), json!(self.memory.ceiling_kib));
                    new.insert("target_memkb".to_owned(), json!(self.memory.target_kib));
                    video.iter().for_each(|video| drop(new.insert("video_memkb".to_owned(), video.clone())));
                    let CreditParameters { weight, cap } = self.share;
                    new.insert(name, json!({ "sched": "credit2", "weight": weight, "cap": cap }));
                }
                _ => drop(new.insert(name, value)),
            }
        }
        config["b_info"] = Value::Object(new);
        config
    }
}

#[cfg(test)]
mod tests {
    use pv_abi::domctl::GetDomainInfo;
    use pv_abi::domid::DomId;

    use super::*;

    fn now() -> Now {
        Now {
            memory: Amounts { target_kib: 204_800, ceiling_kib: 307_200, unbacked_kib: 0 },
            share: CreditParameters { weight: 256, cap: 0 },
            online: vec![0],
        }
    }

    #[test]
    fn nothing_kept_still_says_what_is_known() {
        let domain = Domain { info: GetDomainInfo::default(), name: Some("Domain-0".to_owned()) };
        let text = now().merge(empty(), &domain).to_string();
        let expected = r#"{"c_info":{"type":"pvh","name":"Domain-0"},"b_info":{"max_memkb":307200,"target_memkb":204800,"sched_params":{"sched":"credit2","weight":256,"cap":0},"type.pvh":{},"arch_arm":{},"arch_x86":{}}}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_kept_is_brought_up_to_date_as_libxl_does() {
        // As Debian's tools keep it, and as `xl list -l` shows it after `xl mem-set g1 200` and `xl mem-max g1 300`.
        let kept = r#"{"c_info":{"type":"pvh","name":"old","domid":4294967295,"uuid":"00000000-0000-0000-0000-000000000000"},"b_info":{"max_vcpus":2,"avail_vcpus":[0,1],"max_memkb":262144,"target_memkb":262144,"sched_params":{},"claim_mode":"True","video_memkb":0},"on_reboot":"restart"}"#;
        let expected = r#"{"c_info":{"type":"pvh","name":"g1","domid":4294967295,"uuid":"01010101-0101-0101-0101-010101010101"},"b_info":{"max_vcpus":2,"avail_vcpus":[0],"max_memkb":307200,"target_memkb":204800,"video_memkb":0,"sched_params":{"sched":"credit2","weight":256,"cap":0},"claim_mode":"True"},"on_reboot":"restart"}"#;
        let info = GetDomainInfo { domain: DomId::new(1), handle: [1; 16], ..GetDomainInfo::default() };
        let domain = Domain { info, name: Some("g1".to_owned()) };
        assert_eq!(now().merge(serde_json::from_str(kept).unwrap(), &domain).to_string(), expected);
    }
}
