//! What is asked of the hypervisor, and in which order, written down by one that does nothing else.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use pv_abi::domctl::GetDomainInfo;
use pv_abi::sysctl::XEN_SYSCTL_PHYSCAP_GNTTAB_V1;

use super::*;
use crate::cpu_set::CpuSet;
use crate::privcmd::{MemoryTarget, Result};

/// Writes down every call. Memory is given as the test says.
#[derive(Default)]
struct Recorder {
    calls: Rc<RefCell<Vec<String>>>,
    /// Extents of each order that there are; all, if it does not say.
    blocks: RefCell<Vec<(u32, usize)>>,
    /// Whether it backs memory on first touch, and so keeps targets.
    lazy: bool,
    /// Whether a claim succeeds.
    is_full: bool,
    port: Cell<u32>,
}

impl Recorder {
    fn note(&self, call: String) {
        self.calls.borrow_mut().push(call);
    }

    fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }
}

struct RecordedMemory(Rc<RefCell<Vec<String>>>);

impl WriteMemory for RecordedMemory {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.0.borrow_mut().push(format!("write {address:#x} +{:#x}", bytes.len()));
        Ok(())
    }

    fn write_file(&mut self, address: u64, _: &FilePages, offset: u64, length: usize) -> Result<()> {
        self.0.borrow_mut().push(format!("write {address:#x} +{length:#x} from {offset:#x}"));
        Ok(())
    }

    fn grant(&mut self, reference: u32, address: u64) -> Result<()> {
        self.0.borrow_mut().push(format!("grant {reference} {address:#x}"));
        Ok(())
    }
}

fn refused(errno: Errno) -> privcmd::Error {
    privcmd::Error::Refused { what: "the test", errno }
}

impl Hypervisor for Recorder {
    type Memory = RecordedMemory;

    fn memory(&self, _: DomId) -> Result<RecordedMemory> {
        Ok(RecordedMemory(Rc::clone(&self.calls)))
    }

    fn host(&self) -> Result<PhysInfo> {
        Ok(PhysInfo { free_pages: 1000 << 8, outstanding_pages: 300 << 8, ..host() })
    }

    fn domain(&self, _: DomId) -> Result<Option<GetDomainInfo>> {
        Ok(Some(GetDomainInfo { gpaddr_bits: 40, ..GetDomainInfo::default() }))
    }

    fn create_domain(&self, _: Option<DomId>, config: CreateDomain) -> Result<(DomId, CreateDomain)> {
        let CreateDomain { flags, max_vcpus, max_evtchn_port, max_grant_frames, grant_opts, .. } = config;
        self.note(format!("create {flags:#x} {max_vcpus} {max_evtchn_port} {max_grant_frames} {grant_opts}"));
        let arch = ArchDomainConfig { gic_version: XEN_DOMCTL_CONFIG_GIC_V2, ..config.arch };
        Ok((DomId::new(7), CreateDomain { arch, ..config }))
    }

    fn set_max_vcpus(&self, _: DomId, max: u32) -> Result<()> {
        self.note(format!("max_vcpus {max}"));
        Ok(())
    }

    fn set_address_size(&self, _: DomId, bits: u32) -> Result<()> {
        self.note(format!("address_size {bits}"));
        Ok(())
    }

    fn set_max_memory(&self, _: DomId, kib: u64) -> Result<()> {
        self.note(format!("max_mem {kib}"));
        Ok(())
    }

    fn set_paging_pool(&self, _: DomId, bytes: u64) -> Result<()> {
        self.note(format!("paging_pool {bytes:#x}"));
        Ok(())
    }

    fn set_affinity(
        &self,
        _: DomId,
        vcpu: u32,
        hard: Option<&CpuSet>,
        soft: Option<&CpuSet>,
        _: bool,
    ) -> Result<()> {
        self.note(format!("affinity {vcpu} {} {}", hard.is_some(), soft.is_some()));
        Ok(())
    }

    fn credit_parameters(&self, _: DomId) -> Result<CreditParameters> {
        Ok(CreditParameters { weight: 256, cap: 0 })
    }

    fn set_credit_parameters(&self, _: DomId, share: CreditParameters) -> Result<()> {
        self.note(format!("share {} {}", share.weight, share.cap));
        Ok(())
    }

    fn claim(&self, _: DomId, pages: u64) -> Result<()> {
        self.note(format!("claim {pages:#x}"));
        if self.is_full { Err(refused(Errno::NOMEM)) } else { Ok(()) }
    }

    fn populate(&self, _: DomId, frames: &[u64], order: u32, flags: u32) -> Result<usize> {
        let mut done = if flags != 0 && !self.lazy { 0 } else { frames.len() };
        if let Some((_, left)) = self.blocks.borrow_mut().iter_mut().find(|(size, _)| *size == order) {
            done = done.min(*left);
            *left -= done;
        }
        self.note(format!(
            "populate {:#x} order {order} x{} flags {flags:#x}: {done}",
            frames[0],
            frames.len()
        ));
        Ok(done)
    }

    fn set_memory_target(&self, _: DomId, pages: u64) -> Result<Option<MemoryTarget>> {
        self.note(format!("target {pages:#x}"));
        Ok(self.lazy.then_some(MemoryTarget { target: pages, pages: 0, reserved: 0, unbacked: 0 }))
    }

    fn flush_caches(&self, _: DomId, first: u64, pages: u64) -> Result<()> {
        self.note(format!("flush {first:#x} +{pages:#x}"));
        Ok(())
    }

    fn alloc_unbound(&self, _: DomId, _: DomId) -> Result<Port> {
        self.port.set(self.port.get() + 1);
        self.note(format!("port {}", self.port.get()));
        Ok(self.port.get())
    }

    fn set_parameter(&self, _: DomId, index: Index, value: u64) -> Result<()> {
        self.note(format!("parameter {} {value:#x}", index.raw()));
        Ok(())
    }

    fn set_vcpu_context(&self, _: DomId, vcpu: u32, context: VcpuGuestContext) -> Result<()> {
        let regs = context.user_regs;
        self.note(format!("context {vcpu} pc {:#x} x0 {:#x} cpsr {:#x}", regs.pc64, regs.x[0], regs.cpsr));
        Ok(())
    }
}

fn host() -> PhysInfo {
    PhysInfo { max_cpu_id: 3, capabilities: XEN_SYSCTL_PHYSCAP_GNTTAB_V1, ..PhysInfo::default() }
}

/// A kernel of 5000 bytes that needs 3 MiB, and an initramfs of 10000, as files.
fn images(name: &str, config: &DomainConfig, efi: bool) -> Images {
    let directory = std::env::temp_dir().join(format!("nacelle-build-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let mut kernel = vec![0u8; 5000];
    kernel[16..24].copy_from_slice(&(3u64 << 20).to_le_bytes());
    kernel[56..60].copy_from_slice(b"ARM\x64");
    if efi {
        kernel[..2].copy_from_slice(b"MZ");
    }
    let files: [PathBuf; 2] = ["kernel", "ramdisk"].map(|file| directory.join(file));
    std::fs::write(&files[0], kernel).unwrap();
    std::fs::write(&files[1], vec![1; 10_000]).unwrap();
    let [kernel, ramdisk] = files;
    let images = Images::open(&DomainConfig { kernel, ramdisk: Some(ramdisk), ..config.clone() }).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    images
}

fn config(settings: &str) -> DomainConfig {
    crate::config::parse(&format!("name='g'\nkernel='/k'\n{settings}"), "test").unwrap()
}

fn make(name: &str, xen: &Recorder, config: &DomainConfig) -> std::result::Result<Built, Error> {
    make_of(&images(name, config, false), xen, config)
}

fn make_of(images: &Images, xen: &Recorder, config: &DomainConfig) -> std::result::Result<Built, Error> {
    let (domain, arch) = create_empty(xen, config, Uuid([5; 16]), 0, &host())?;
    build(xen, domain, arch, config, images, &host(), &mut |_| ())
}

#[test]
fn a_domain_is_made_in_libxls_order() {
    let xen = Recorder::default();
    let built =
        make("order", &xen, &config("memory=256\nvcpus=2\nmaxvcpus=4\ncpu_weight=512\ncpus='0-1'")).unwrap();
    assert_eq!(built, Built { visible_kib: 256 << 10, console_port: 2, store_port: 1 });
    let calls = xen.calls();
    let expected = [
        "create 0x3 4 1023 -1 1",
        "paging_pool 0x580000",
        "max_vcpus 4",
        "affinity 0 true false",
        "affinity 1 true false",
        "affinity 2 true false",
        "affinity 3 true false",
        "share 512 0",
        "address_size 64",
        "max_mem 263168",
        "target 0x10000",
        "claim 0x10002",
        "populate 0x40000 order 9 x128 flags 0x0: 128",
        "populate 0x39000 order 0 x2 flags 0x0: 2",
        "claim 0x0",
        "port 1",
        "port 2",
        "write 0x40000000 +0x1388 from 0x0",
        "write 0x48000000 +0x2710 from 0x0",
    ];
    assert_eq!(calls[..expected.len()], expected);
    assert!(calls[expected.len()].starts_with("write 0x48003000 +"), "{}", calls[expected.len()]);
    let rest = [
        "write 0x39000000 +0x1000",
        "grant 0 0x39000000",
        "write 0x39001000 +0x1000",
        "grant 1 0x39001000",
        "flush 0x40000 +0x300",
        "flush 0x48003 +0x1",
        "flush 0x39000 +0x2",
        "flush 0x48000 +0x3",
        "parameter 17 0x39000",
        "parameter 1 0x39001",
        "parameter 18 0x2",
        "parameter 2 0x1",
        "context 0 pc 0x40000000 x0 0x48003000 cpsr 0x1c5",
    ];
    assert_eq!(calls[expected.len() + 1..], rest);
}

#[test]
fn memory_comes_in_smaller_pieces_where_large_ones_are_gone() {
    // One GiB as such; of the next, one block of 2 MiB is missing.
    let blocks = RefCell::new(vec![(18, 1), (9, 511)]);
    let xen = Recorder { blocks, ..Recorder::default() };
    make("pieces", &xen, &config("memory=2048")).unwrap();
    let populated: Vec<_> = xen.calls().into_iter().filter(|call| call.starts_with("populate")).collect();
    assert_eq!(
        populated,
        [
            "populate 0x40000 order 18 x2 flags 0x0: 1",
            "populate 0x80000 order 9 x512 flags 0x0: 511",
            "populate 0xbfe00 order 0 x512 flags 0x0: 512",
            "populate 0x39000 order 0 x2 flags 0x0: 2",
        ]
    );
}

#[test]
fn memory_may_end() {
    let xen = Recorder { blocks: RefCell::new(vec![(9, 3), (0, 700)]), ..Recorder::default() };
    let error = make("end", &xen, &config("memory=64")).unwrap_err();
    assert!(matches!(error, Error::NoMemory { needed: 64, free: 700, .. }), "{error}");
    let xen = Recorder { is_full: true, ..Recorder::default() };
    let error = make("full", &xen, &config("memory=64")).unwrap_err();
    assert!(error.to_string().contains("needs 64 MiB, 700 MiB are free"), "{error}");
    // Nothing is begun that cannot be finished.
    assert!(!xen.calls().iter().any(|call| call.starts_with("populate")));
}

#[test]
fn a_domain_that_may_grow_sees_its_maximum_where_memory_comes_on_demand() {
    let xen = Recorder { lazy: true, ..Recorder::default() };
    let built = make("lazy", &xen, &config("memory=256\nmaxmem=4096")).unwrap();
    assert_eq!(built.visible_kib, 4096 << 10);
    let calls = xen.calls();
    let memory: Vec<_> = calls
        .iter()
        .filter(|call| ["populate", "target", "claim"].iter().any(|what| call.starts_with(what)))
        .collect();
    assert_eq!(
        memory,
        [
            "target 0x10000",
            "populate 0x40000 order 18 x1 flags 0x10000: 1",
            "populate 0x80000 order 18 x2 flags 0x10000: 2",
            "populate 0x200000 order 18 x1 flags 0x10000: 1",
            "populate 0x39000 order 0 x2 flags 0x0: 2",
        ]
    );
}

#[test]
fn linux_sees_no_more_than_it_can_give_back() {
    let xen = Recorder { lazy: true, ..Recorder::default() };
    let wanted = config("memory=256\nmaxmem=4096");
    let built = make_of(&images("linux", &wanted, true), &xen, &wanted).unwrap();
    assert_eq!(built.visible_kib, 3072 << 10);
    let calls = xen.calls();
    let populated: Vec<_> = calls.iter().filter(|call| call.starts_with("populate")).collect();
    assert_eq!(
        populated,
        [
            "populate 0x40000 order 18 x1 flags 0x10000: 1",
            "populate 0x80000 order 18 x2 flags 0x10000: 2",
            "populate 0x39000 order 0 x2 flags 0x0: 2",
        ]
    );
}

#[test]
fn a_domain_that_may_grow_starts_small_elsewhere() {
    let xen = Recorder::default();
    let built = make("small", &xen, &config("memory=256\nmaxmem=512")).unwrap();
    assert_eq!(built.visible_kib, 256 << 10);
    let populated: Vec<_> = xen.calls().into_iter().filter(|call| call.starts_with("populate")).collect();
    assert_eq!(
        populated,
        [
            "populate 0x40000 order 9 x1 flags 0x10000: 0",
            "populate 0x40000 order 9 x128 flags 0x0: 128",
            "populate 0x39000 order 0 x2 flags 0x0: 2",
        ]
    );
}

#[test]
fn memory_that_is_added_is_put_to_use() {
    let line = |settings: &str, grows| command_line(&config(&format!("memory=64\n{settings}")), grows, false);
    assert_eq!(line("", false), "");
    assert_eq!(line("", true), "memhp_default_state=online");
    assert_eq!(line("extra='console=hvc0'", true), "console=hvc0 memhp_default_state=online");
    assert_eq!(line("extra='memhp_default_state=offline'", true), "memhp_default_state=offline");
    let line = |settings: &str| command_line(&config(&format!("memory=64\n{settings}")), true, true);
    assert_eq!(line(""), "memhp_default_state=online xen_scrub_pages=0");
    assert_eq!(line("extra='xen_scrub_pages=1'"), "xen_scrub_pages=1 memhp_default_state=online");
    // Linux gives its init what follows.
    assert_eq!(
        line("extra='console=hvc0 -- hold xen_scrub_pages=1'"),
        "console=hvc0 memhp_default_state=online xen_scrub_pages=0 -- hold xen_scrub_pages=1"
    );
    assert_eq!(line("extra='-- hold'"), "memhp_default_state=online xen_scrub_pages=0 -- hold");
}
