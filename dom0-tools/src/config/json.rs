//! libxl's JSON of a domain: what `xl list -l` and `xl create -n` print, and what the tools keep of each domain.
//!
//! Names, order and what is left out as a default are those of libxl 4.17 (`libxl_types.idl`).

use serde_json::{Map, Value, json};

use super::devices::{Disk, Vif};
use super::{Action, Affinity, DomainConfig, GicVersion};

/// Puts `value` into `map`, unless it is none.
fn put<T: Into<Value>>(map: &mut Map<String, Value>, name: &str, value: Option<T>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}

/// libxl's way to write what is true, false or not said.
fn truth(value: bool) -> Value {
    json!(if value { "True" } else { "False" })
}

fn path(path: &std::path::Path) -> Value {
    json!(path.to_string_lossy())
}

impl Action {
    fn json(self) -> Value {
        json!(self.name().replace('-', "_"))
    }
}

impl DomainConfig {
    /// The domain as a `libxl_domain_config`. `cpus` is the number of the host's, which `all` stands for.
    pub fn to_libxl(&self, cpus: u32) -> Value {
        let mut config = Map::new();
        config.insert("c_info".to_owned(), self.create_info());
        config.insert("b_info".to_owned(), self.build_info(cpus));
        if !self.disks.is_empty() {
            config.insert("disks".to_owned(), self.disks.iter().map(Disk::json).collect());
        }
        if !self.vifs.is_empty() {
            config.insert(
                "nics".to_owned(),
                self.vifs.iter().enumerate().map(|(id, vif)| vif.json(id)).collect(),
            );
        }
        for (name, action) in [
            ("on_poweroff", self.on_poweroff),
            ("on_reboot", self.on_reboot),
            ("on_watchdog", self.on_watchdog),
            ("on_crash", self.on_crash),
            ("on_soft_reset", self.on_soft_reset),
        ] {
            // The first of libxl's enumeration is what is left out.
            put(&mut config, name, (action != Action::Destroy).then(|| action.json()));
        }
        Value::Object(config)
    }

    fn create_info(&self) -> Value {
        let mut info = Map::new();
        info.insert("type".to_owned(), json!("pvh"));
        info.insert("name".to_owned(), json!(self.name));
        put(&mut info, "uuid", self.uuid.map(|uuid| uuid.to_string()));
        put(&mut info, "pool_name", self.pool.clone());
        info.insert("run_hotplug_scripts".to_owned(), truth(true));
        Value::Object(info)
    }

    fn build_info(&self, cpus: u32) -> Value {
        let mut info = Map::new();
        info.insert("max_vcpus".to_owned(), json!(self.maxvcpus));
        info.insert("avail_vcpus".to_owned(), (0..self.vcpus).collect());
        for (name, affinity) in [("vcpu_hard_affinity", &self.cpus), ("vcpu_soft_affinity", &self.cpus_soft)]
        {
            let sets = affinity.sets(self.maxvcpus, cpus);
            let sets = sets.iter().map(|set| set.iter().collect()).collect::<Vec<Value>>();
            put(&mut info, name, (!sets.is_empty()).then_some(sets));
        }
        let is_placed = matches!(self.cpus, Affinity::Each(_)) || self.cpus_soft != Affinity::Any;
        put(&mut info, "numa_placement", is_placed.then(|| truth(false)));
        info.insert("max_memkb".to_owned(), json!(self.maxmem_kib));
        info.insert("target_memkb".to_owned(), json!(self.memory_kib));
        put(&mut info, "max_grant_frames", self.max_grant_frames);
        put(&mut info, "max_maptrack_frames", self.max_maptrack_frames);
        put(&mut info, "max_grant_version", self.max_grant_version);
        let mut share = Map::new();
        put(&mut share, "weight", self.cpu_weight);
        put(&mut share, "cap", self.cap);
        info.insert("sched_params".to_owned(), Value::Object(share));
        info.insert("claim_mode".to_owned(), truth(true));
        put(&mut info, "event_channels", self.max_event_channels.filter(|port| *port != 0));
        info.insert("kernel".to_owned(), path(&self.kernel));
        put(&mut info, "cmdline", self.cmdline.clone());
        put(&mut info, "ramdisk", self.ramdisk.as_deref().map(path));
        put(&mut info, "device_tree", self.device_tree.as_deref().map(path));
        put(&mut info, "acpi", self.acpi.map(truth));
        info.insert("type.pvh".to_owned(), json!({}));
        let mut arm = Map::new();
        put(
            &mut arm,
            "gic_version",
            match self.gic_version {
                GicVersion::Native => None,
                GicVersion::V2 => Some("v2"),
                GicVersion::V3 => Some("v3"),
            },
        );
        put(&mut arm, "vuart", self.has_vuart.then_some("sbsa_uart"));
        info.insert("arch_arm".to_owned(), Value::Object(arm));
        info.insert("arch_x86".to_owned(), json!({}));
        Value::Object(info)
    }
}

impl Disk {
    fn json(&self) -> Value {
        let mut disk = Map::new();
        put(&mut disk, "backend_domname", self.backend.clone());
        put(&mut disk, "pdev_path", (!self.target.is_empty()).then(|| self.target.clone()));
        put(&mut disk, "vdev", Some(self.vdev.clone()));
        put(&mut disk, "backend", self.backend_type.clone());
        put(&mut disk, "format", Some(self.format.name()));
        put(&mut disk, "script", self.script.clone());
        put(&mut disk, "removable", self.is_cdrom.then_some(1));
        put(&mut disk, "readwrite", self.is_writable.then_some(1));
        put(&mut disk, "is_cdrom", self.is_cdrom.then_some(1));
        put(&mut disk, "direct_io_safe", self.is_direct_io_safe.then_some(true));
        put(&mut disk, "discard_enable", self.discard.map(truth));
        Value::Object(disk)
    }
}

impl Vif {
    fn json(&self, index: usize) -> Value {
        let mut vif = Map::new();
        put(&mut vif, "backend_domname", self.backend.clone());
        put(&mut vif, "devid", Some(index as u64));
        put(&mut vif, "mtu", self.mtu);
        put(&mut vif, "model", self.model.clone());
        put(&mut vif, "mac", self.mac_text());
        put(&mut vif, "ip", self.ip.clone());
        put(&mut vif, "bridge", self.bridge.clone());
        put(&mut vif, "ifname", self.vifname.clone());
        put(&mut vif, "script", self.script.clone());
        put(&mut vif, "rate_bytes_per_interval", self.rate.map(|rate| rate.bytes_per_interval));
        put(&mut vif, "rate_interval_usecs", self.rate.map(|rate| rate.interval_usecs));
        put(&mut vif, "gatewaydev", self.gatewaydev.clone());
        Value::Object(vif)
    }
}
