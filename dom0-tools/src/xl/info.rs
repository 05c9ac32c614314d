//! `xl info`: the host and the hypervisor.

use std::io::{self, Write};

use anyhow::Result;
use pv_abi::sysctl::{
    CpuTopo, PhysInfo, XEN_INVALID_CORE_ID, XEN_INVALID_MEM_SZ, XEN_SYSCTL_PHYSCAP_DIRECTIO,
    XEN_SYSCTL_PHYSCAP_GNTTAB_V1, XEN_SYSCTL_PHYSCAP_GNTTAB_V2, XEN_SYSCTL_PHYSCAP_HAP,
    XEN_SYSCTL_PHYSCAP_HVM, XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE, XEN_SYSCTL_PHYSCAP_PV,
    XEN_SYSCTL_PHYSCAP_SHADOW, XEN_SYSCTL_PHYSCAP_VMTRACE, XEN_SYSCTL_PHYSCAP_VPMU,
};
use serde_json::{Map, Value, json};

use super::command_line::Info;
use super::host::Host;
use super::{print_json, scheduler_name};
use crate::privcmd::{NumaNode, Version};

const MIB: u64 = 1 << 20;

/// Everything that is printed.
struct Facts {
    /// host, release, version and machine, as the kernel says.
    kernel: [String; 4],
    cpus: PhysInfo,
    /// Pages that sharing made free, and pages shared.
    sharing: (u64, u64),
    free_cpus: usize,
    scheduler: &'static str,
    version: Version,
    topology: Option<(Vec<CpuTopo>, Vec<NumaNode>)>,
}

/// Prints all of it.
pub(super) fn run(host: &Host, options: &Info, out: &mut impl Write) -> Result<()> {
    let uname = rustix::system::uname();
    let kernel = [uname.nodename(), uname.release(), uname.version(), uname.machine()];
    let xen = &host.xen;
    let facts = Facts {
        kernel: kernel.map(|text| text.to_string_lossy().into_owned()),
        cpus: xen.physinfo()?,
        sharing: xen.shared_pages()?,
        free_cpus: xen.free_cpus()?.len(),
        scheduler: scheduler_name(xen.scheduler()?),
        version: xen.version()?,
        topology: if options.numa { Some((xen.cpu_topology()?, xen.numa()?)) } else { None },
    };
    if options.json { print_json(&facts.json(), out) } else { Ok(facts.print(out)?) }
}

/// What guests the machine can run and how, in xl's words and order.
fn virtualization(capabilities: u32) -> String {
    let has = |bit: u32| capabilities & bit != 0;
    let (pv, hvm) = (has(XEN_SYSCTL_PHYSCAP_PV), has(XEN_SYSCTL_PHYSCAP_HVM));
    let directio = has(XEN_SYSCTL_PHYSCAP_DIRECTIO);
    let words = [
        (pv, "pv"),
        (hvm, "hvm"),
        (hvm && directio, "hvm_directio"),
        (pv && directio, "pv_directio"),
        (has(XEN_SYSCTL_PHYSCAP_HAP), "hap"),
        (has(XEN_SYSCTL_PHYSCAP_SHADOW), "shadow"),
        (has(XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE), "iommu_hap_pt_share"),
        (has(XEN_SYSCTL_PHYSCAP_VMTRACE), "vmtrace"),
        (has(XEN_SYSCTL_PHYSCAP_VPMU), "vpmu"),
        (has(XEN_SYSCTL_PHYSCAP_GNTTAB_V1), "gnttab-v1"),
        (has(XEN_SYSCTL_PHYSCAP_GNTTAB_V2), "gnttab-v2"),
    ];
    words.iter().filter(|(has, _)| *has).map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Facts {
    fn mib(&self, pages: u64) -> u64 {
        pages / (MIB / self.version.page_size.clamp(1, MIB))
    }

    /// The lines before the topology, by name, in order.
    fn machine(&self) -> Vec<(&'static str, Value)> {
        let cpus = &self.cpus;
        let [host, release, version, machine] = &self.kernel;
        let words: Vec<String> = cpus.hw_cap.iter().map(|word| format!("{word:08x}")).collect();
        vec![
            ("host", json!(host)),
            ("release", json!(release)),
            ("version", json!(version)),
            ("machine", json!(machine)),
            ("nr_cpus", json!(cpus.nr_cpus)),
            ("max_cpu_id", json!(cpus.max_cpu_id)),
            ("nr_nodes", json!(cpus.nr_nodes)),
            ("cores_per_socket", json!(cpus.cores_per_socket)),
            ("threads_per_core", json!(cpus.threads_per_core)),
            ("cpu_mhz", json!(format!("{}.{:03}", cpus.cpu_khz / 1000, cpus.cpu_khz % 1000))),
            ("hw_caps", json!(words.join(":"))),
            ("virt_caps", json!(virtualization(cpus.capabilities))),
            ("total_memory", json!(self.mib(cpus.total_pages))),
            ("free_memory", json!(self.mib(cpus.free_pages.saturating_sub(cpus.outstanding_pages)))),
            ("sharing_freed_memory", json!(self.mib(self.sharing.0))),
            ("sharing_used_memory", json!(self.mib(self.sharing.1))),
            ("outstanding_claims", json!(self.mib(cpus.outstanding_pages))),
            ("free_cpus", json!(self.free_cpus)),
        ]
    }

    /// The lines after the topology.
    fn hypervisor(&self) -> Vec<(&'static str, Value)> {
        let version = &self.version;
        let Version { major, minor, extra, .. } = version;
        vec![
            ("xen_major", json!(major)),
            ("xen_minor", json!(minor)),
            ("xen_extra", json!(extra)),
            ("xen_version", json!(format!("{major}.{minor}{extra}"))),
            ("xen_caps", json!(version.capabilities)),
            ("xen_scheduler", json!(self.scheduler)),
            ("xen_pagesize", json!(version.page_size)),
            ("platform_params", json!(format!("virt_start={:#x}", version.virt_start))),
            ("xen_changeset", json!(version.changeset)),
            ("xen_commandline", json!(version.command_line)),
            ("cc_compiler", json!(version.compiler)),
            ("cc_compile_by", json!(version.compile_by)),
            ("cc_compile_domain", json!(version.compile_domain)),
            ("cc_compile_date", json!(version.compile_date)),
            ("build_id", json!(hexadecimal(&version.build_id))),
            ("xend_config_format", json!(4)),
        ]
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        print_lines(&self.machine(), out)?;
        if let Some((cpus, nodes)) = &self.topology {
            self.print_topology(cpus, nodes, out)?;
        }
        print_lines(&self.hypervisor(), out)
    }

    fn print_topology(&self, cpus: &[CpuTopo], nodes: &[NumaNode], out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "cpu_topology           :")?;
        writeln!(out, "cpu:    core    socket     node")?;
        for (index, cpu) in cpus.iter().enumerate().filter(|(_, cpu)| cpu.core != XEN_INVALID_CORE_ID) {
            writeln!(out, "{index:3}:    {:4}     {:4}     {:4}", cpu.core, cpu.socket, cpu.node)?;
        }
        writeln!(out, "numa_info              :")?;
        writeln!(out, "node:    memsize    memfree    distances")?;
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.size != XEN_INVALID_MEM_SZ) {
            let distances: Vec<String> = node.distances.iter().map(u32::to_string).collect();
            let (size, free) = (node.size / MIB, node.free / MIB);
            writeln!(out, "{index:4}:    {size:6}     {free:6}      {}", distances.join(","))?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let lines = self.machine().into_iter().chain(self.hypervisor());
        let mut all: Map<String, Value> = lines.map(|(name, value)| (name.to_owned(), value)).collect();
        // To the page, for who counts them.
        all.insert("free_pages".to_owned(), json!(self.cpus.free_pages));
        all.insert("outstanding_pages".to_owned(), json!(self.cpus.outstanding_pages));
        if let Some((cpus, nodes)) = &self.topology {
            let cpus: Vec<Value> = cpus
                .iter()
                .map(|cpu| json!({ "core": cpu.core, "socket": cpu.socket, "node": cpu.node }))
                .collect();
            let nodes: Vec<Value> = nodes
                .iter()
                .map(|node| json!({ "size": node.size, "free": node.free, "dists": node.distances }))
                .collect();
            all.insert("cpu_topology".to_owned(), Value::Array(cpus));
            all.insert("numa_info".to_owned(), Value::Array(nodes));
        }
        Value::Object(all)
    }
}

fn print_lines(lines: &[(&str, Value)], out: &mut impl Write) -> io::Result<()> {
    for (name, value) in lines {
        match value {
            Value::String(text) => writeln!(out, "{name:22} : {text}")?,
            number => writeln!(out, "{name:22} : {number}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            kernel: ["dom0", "6.1.0", "#1 SMP", "aarch64"].map(str::to_owned),
            cpus: PhysInfo {
                nr_cpus: 2,
                max_cpu_id: 1,
                nr_nodes: 1,
                cores_per_socket: 1,
                threads_per_core: 1,
                cpu_khz: 62_500,
                capabilities: XEN_SYSCTL_PHYSCAP_HVM
                    | XEN_SYSCTL_PHYSCAP_HAP
                    | XEN_SYSCTL_PHYSCAP_VPMU
                    | XEN_SYSCTL_PHYSCAP_GNTTAB_V1,
                total_pages: 786_432,
                free_pages: 507_136,
                outstanding_pages: 256,
                ..PhysInfo::default()
            },
            sharing: (0, 0),
            free_cpus: 0,
            scheduler: "credit2",
            version: Version {
                major: 4,
                minor: 17,
                extra: ".7".into(),
                capabilities: "xen-3.0-aarch64 ".into(),
                page_size: 4096,
                virt_start: 0x20_0000,
                build_id: vec![0x7a, 0x03],
                ..Version::default()
            },
            topology: None,
        }
    }

    fn printed(host: &Facts) -> String {
        let mut out = Vec::new();
        host.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_debians() {
        let expected = "\
host                   : dom0
release                : 6.1.0
version                : #1 SMP
machine                : aarch64
nr_cpus                : 2
max_cpu_id             : 1
nr_nodes               : 1
cores_per_socket       : 1
threads_per_core       : 1
cpu_mhz                : 62.500
hw_caps                : 00000000:00000000:00000000:00000000:00000000:00000000:00000000:00000000
virt_caps              : hvm hap vpmu gnttab-v1
total_memory           : 3072
free_memory            : 1980
sharing_freed_memory   : 0
sharing_used_memory    : 0
outstanding_claims     : 1
free_cpus              : 0
xen_major              : 4
xen_minor              : 17
xen_extra              : .7
xen_version            : 4.17.7
xen_caps               : xen-3.0-aarch64 \n\
xen_scheduler          : credit2
xen_pagesize           : 4096
platform_params        : virt_start=0x200000
xen_changeset          : \n\
xen_commandline        : \n\
cc_compiler            : \n\
cc_compile_by          : \n\
cc_compile_domain      : \n\
cc_compile_date        : \n\
build_id               : 7a03
xend_config_format     : 4
";
        assert_eq!(printed(&facts()), expected);
    }

    #[test]
    fn the_topology_comes_between() {
        let mut host = facts();
        let off = CpuTopo { core: u32::MAX, socket: u32::MAX, node: u32::MAX };
        let node = NumaNode { size: 3072 << 20, free: 1980 << 20, distances: vec![20, 40] };
        host.topology = Some((vec![CpuTopo::default(), off], vec![node]));
        let expected = "\
free_cpus              : 0
cpu_topology           :
cpu:    core    socket     node
  0:       0        0        0
numa_info              :
node:    memsize    memfree    distances
   0:      3072       1980      20,40
xen_major              : 4
";
        assert!(printed(&host).contains(expected), "{}", printed(&host));
    }

    #[test]
    fn json_has_the_same_names() {
        let host = facts();
        let json = host.json();
        for line in printed(&host).lines() {
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap();
            match &json[name.trim()] {
                Value::String(text) => assert_eq!(text, value),
                other => assert_eq!(other.to_string(), value),
            }
        }
    }
}
