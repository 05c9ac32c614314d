//! Making a domain, as far as the hypervisor is concerned: from nothing to a paused domain with its kernel in memory.
//!
//! The order is libxl's. What differs: memory is copied, not mapped; and a domain that may have more than it starts with sees it all
//! from the start where the hypervisor backs memory on first touch, and has it added later where not.

#[cfg(test)]
mod tests;

use std::ops::Range;

use pv_abi::arch_arm::{
    ArchDomainConfig, GUEST_MAGIC_BASE, PSR_GUEST64_INIT, SCTLR_GUEST_INIT, VGCF_ONLINE, VcpuGuestContext,
    VcpuGuestCoreRegs, XEN_DOMCTL_CONFIG_GIC_NATIVE, XEN_DOMCTL_CONFIG_GIC_V2, XEN_DOMCTL_CONFIG_GIC_V3,
};
use pv_abi::domctl::{CreateDomain, XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM};
use pv_abi::domid::DomId;
use pv_abi::event_channel::Port;
use pv_abi::grant_table::{GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE};
use pv_abi::hvm::Index;
use pv_abi::memory::XENMEMF_POPULATE_ON_DEMAND;
use pv_abi::sysctl::{PhysInfo, XEN_SYSCTL_PHYSCAP_GNTTAB_V1, XEN_SYSCTL_PHYSCAP_GNTTAB_V2};
use rustix::io::Errno;

use super::guest_memory::WINDOW;
use super::hypervisor::{Hypervisor, WriteMemory};
use super::image::{Kernel, Module};
use super::layout::{self, Layout, PAGE};
use super::tree::{self, Gic, Machine};
use super::{Error, Progress, Step};
use crate::config::{DomainConfig, GicVersion};
use crate::privcmd::{self, CreditParameters, FilePages};
use crate::uuid::Uuid;

/// KiB that a domain may have beyond its target (libxl's `LIBXL_MAXMEM_CONSTANT`): its pages for console and XenStore.
pub const SLACK_KIB: u64 = 1024;
/// The highest port without `max_event_channels`, as libxl has it.
const DEFAULT_EVENT_CHANNELS: u32 = 1023;
/// The page of the console ring, and of XenStore's (`xg_dom_arm.c`).
const CONSOLE: u64 = GUEST_MAGIC_BASE;
const STORE: u64 = GUEST_MAGIC_BASE + PAGE;
/// Frames in one call that populates: many, but few enough that others are not kept waiting.
const EXTENTS: usize = 1024;

/// What a domain starts with, read before there is a domain.
#[derive(Debug)]
pub struct Images {
    kernel: Kernel,
    ramdisk: Option<Module>,
}

impl Images {
    /// Opens the files.
    ///
    /// # Errors
    /// [`Error::Image`].
    pub fn open(config: &DomainConfig) -> Result<Self, Error> {
        let kernel = Kernel::open(&config.kernel, config.memory_kib << 10)?;
        let ramdisk = config.ramdisk.as_deref().map(Module::open).transpose()?;
        Ok(Self { kernel, ramdisk })
    }
}

/// How a domain came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// KiB of memory that it sees as RAM.
    pub visible_kib: u64,
    /// Its port to the console daemon.
    pub console_port: Port,
    /// Its port to XenStore.
    pub store_port: Port,
}

impl Built {
    /// Guest frame of the console ring.
    pub const CONSOLE_FRAME: u64 = CONSOLE / PAGE;
    /// Guest frame of XenStore's ring.
    pub const STORE_FRAME: u64 = STORE / PAGE;
}

/// Names the step that failed.
fn at(step: &'static str) -> impl FnOnce(privcmd::Error) -> Error {
    move |error| Error::Hypervisor { step, error }
}

/// Makes an empty domain; its handle is its UUID from the first moment on.
///
/// # Errors
/// [`Error::Hypervisor`].
pub fn create_empty<H: Hypervisor>(
    xen: &H,
    config: &DomainConfig,
    uuid: Uuid,
    pool: u32,
    host: &PhysInfo,
) -> Result<(DomId, ArchDomainConfig), Error> {
    let gic_version = match config.gic_version {
        GicVersion::Native => XEN_DOMCTL_CONFIG_GIC_NATIVE,
        GicVersion::V2 => XEN_DOMCTL_CONFIG_GIC_V2,
        GicVersion::V3 => XEN_DOMCTL_CONFIG_GIC_V3,
    };
    let hosts_version = if host.capabilities & XEN_SYSCTL_PHYSCAP_GNTTAB_V2 != 0 {
        2
    } else {
        u32::from(host.capabilities & XEN_SYSCTL_PHYSCAP_GNTTAB_V1 != 0)
    };
    // No limit given is the hypervisor's: a negative number.
    let frames = |limit: Option<u32>| limit.and_then(|frames| i32::try_from(frames).ok()).unwrap_or(-1);
    let ask = CreateDomain {
        handle: uuid.0,
        flags: XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP,
        max_vcpus: config.maxvcpus,
        max_evtchn_port: config
            .max_event_channels
            .filter(|port| *port != 0)
            .unwrap_or(DEFAULT_EVENT_CHANNELS),
        max_grant_frames: frames(config.max_grant_frames),
        max_maptrack_frames: frames(config.max_maptrack_frames),
        grant_opts: config.max_grant_version.unwrap_or(hosts_version),
        cpupool_id: pool,
        arch: ArchDomainConfig { gic_version, ..ArchDomainConfig::default() },
        ..CreateDomain::default()
    };
    let (domain, created) = xen.create_domain(None, ask).map_err(at("make the domain"))?;
    Ok((domain, created.arch))
}

/// Gives it everything it needs to start.
///
/// # Errors
/// [`Error`].
pub fn build<H: Hypervisor>(
    xen: &H,
    domain: DomId,
    arch: ArchDomainConfig,
    config: &DomainConfig,
    images: &Images,
    host: &PhysInfo,
    progress: &mut Progress<'_>,
) -> Result<Built, Error> {
    vcpus(xen, domain, config, host)?;
    let visible = populate(xen, domain, config, images.kernel.is_efi(), progress)?;
    let store_port = xen.alloc_unbound(domain, DomId::DOM0).map_err(at("make the port of XenStore"))?;
    let console_port = xen.alloc_unbound(domain, DomId::DOM0).map_err(at("make the port of the console"))?;

    let kernel = &images.kernel;
    let (layout, blob) = describe(xen, domain, arch, config, images, visible)?;
    let mut guest = xen.memory(domain).map_err(at("reach its memory"))?;
    load(&mut guest, images, &layout, progress)?;
    guest.write(layout.tree.start, &blob).map_err(at("write its device tree"))?;
    // Cleared again: who had these pages before left no ring there, and the hypervisor clears in its own time.
    let empty = [0; PAGE as usize];
    for (page, reference) in [(CONSOLE, GNTTAB_RESERVED_CONSOLE), (STORE, GNTTAB_RESERVED_XENSTORE)] {
        guest.write(page, &empty).map_err(at("clear its rings"))?;
        guest.grant(reference, page).map_err(at("grant its rings"))?;
    }
    drop(guest);
    // It starts with its caches off.
    let mut written = vec![
        kernel.start()..kernel.end().min(layout.banks[0].end),
        layout.tree.clone(),
        CONSOLE..STORE + PAGE,
    ];
    written.extend(layout.ramdisk.clone());
    for range in written {
        let (first, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
        xen.flush_caches(domain, first, end - first).map_err(at("clean its memory out of the caches"))?;
    }
    for (index, value) in [
        (Index::ConsolePfn, Built::CONSOLE_FRAME),
        (Index::StorePfn, Built::STORE_FRAME),
        (Index::ConsoleEvtchn, u64::from(console_port)),
        (Index::StoreEvtchn, u64::from(store_port)),
    ] {
        xen.set_parameter(domain, index, value).map_err(at("tell it of its rings"))?;
    }
    xen.set_vcpu_context(domain, 0, start(kernel.entry(), layout.tree.start))
        .map_err(at("set its registers"))?;
    Ok(Built { visible_kib: visible >> 10, console_port, store_port })
}

/// Where vCPU 0 starts (Linux, `Documentation/arch/arm64/booting.rst`).
fn start(entry: u64, tree: u64) -> VcpuGuestContext {
    let mut user_regs =
        VcpuGuestCoreRegs { pc64: entry, cpsr: PSR_GUEST64_INIT, ..VcpuGuestCoreRegs::default() };
    user_regs.x[0] = tree;
    VcpuGuestContext { flags: VGCF_ONLINE, user_regs, sctlr: SCTLR_GUEST_INIT, ..VcpuGuestContext::default() }
}

fn vcpus<H: Hypervisor>(xen: &H, domain: DomId, config: &DomainConfig, host: &PhysInfo) -> Result<(), Error> {
    xen.set_paging_pool(domain, paging_pool(config)).map_err(at("set memory aside for its page tables"))?;
    xen.set_max_vcpus(domain, config.maxvcpus).map_err(at("give it its vCPUs"))?;
    let cpus = host.max_cpu_id.saturating_add(1);
    let hard = config.cpus.sets(config.maxvcpus, cpus);
    let soft = config.cpus_soft.sets(config.maxvcpus, cpus);
    for vcpu in 0..config.maxvcpus {
        let (hard, soft) = (hard.get(vcpu as usize), soft.get(vcpu as usize));
        if hard.is_some() || soft.is_some() {
            xen.set_affinity(domain, vcpu, hard, soft, false).map_err(at("set where its vCPUs run"))?;
        }
    }
    if config.cpu_weight.is_some() || config.cap.is_some() {
        let now = xen.credit_parameters(domain).map_err(at("read its share of the CPUs"))?;
        let (weight, cap) = (config.cpu_weight.unwrap_or(now.weight), config.cap.unwrap_or(now.cap));
        let share = CreditParameters { weight, cap };
        xen.set_credit_parameters(domain, share).map_err(at("set its share of the CPUs"))?;
    }
    xen.set_address_size(domain, 64).map_err(at("set it to 64 bits"))
}

/// Bytes for stage-2 tables, by libxl's rule (`libxl__arch_get_required_paging_memory`): 1 MiB for each vCPU, a page for each MiB of
/// memory, and for each of 128 MiB of others' pages.
fn paging_pool(config: &DomainConfig) -> u64 {
    (256 * u64::from(config.maxvcpus) + (config.maxmem_kib >> 10) + 128) * PAGE
}

/// Gives it its memory: how much of it it sees. Of kernels, Linux alone is an EFI program (as Debian builds it).
fn populate<H: Hypervisor>(
    xen: &H,
    domain: DomId,
    config: &DomainConfig,
    linux: bool,
    progress: &mut Progress<'_>,
) -> Result<u64, Error> {
    let memory = config.memory_kib << 10;
    let maximum = config.maxmem_kib << 10;
    xen.set_max_memory(domain, config.memory_kib + SLACK_KIB)
        .map_err(at("set how much memory it may have"))?;
    let promised = promise_memory(xen, domain, memory).map_err(|error| match error {
        error if error.is(Errno::NOMEM) => no_memory(xen, config),
        error => at("set memory aside for it")(error),
    })?;
    let mut giver = Giver { xen, domain, done: 0, total: memory, progress };
    let mut visible = if linux { layout::visible_to_linux(memory, maximum) } else { maximum };
    let promised_all = if visible > memory { giver.promise(visible)? } else { None };
    let all = match promised_all {
        Some(whole) => whole,
        None => {
            visible = memory;
            let mut whole = true;
            for bank in layout::banks(memory)? {
                whole = whole && giver.give(layout::extents(&bank), 0)?;
            }
            whole
        }
    };
    if !all || !giver.give(layout::extents(&(CONSOLE..STORE + PAGE)), 0)? {
        return Err(no_memory(xen, config));
    }
    if promised == Promise::Claim {
        xen.claim(domain, 0).map_err(at("end the claim of its memory"))?;
    }
    Ok(visible)
}

/// How memory was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    /// By a target, which stays.
    Target,
    /// By a claim, which has to be ended.
    Claim,
}

/// Sets memory aside, so that another domain that is made at the same time cannot have it.
fn promise_memory<H: Hypervisor>(xen: &H, domain: DomId, memory: u64) -> privcmd::Result<Promise> {
    if xen.set_memory_target(domain, memory / PAGE)?.is_some() {
        return Ok(Promise::Target);
    }
    let rings = (STORE + PAGE - CONSOLE) / PAGE;
    xen.claim(domain, memory / PAGE + rings).map(|()| Promise::Claim)
}

/// Extents: an order and the frames they begin at.
type Extents = Vec<(u32, Vec<u64>)>;

/// Gives a domain memory, and tells how far it is.
struct Giver<'a, 'b, H> {
    xen: &'a H,
    domain: DomId,
    done: u64,
    total: u64,
    progress: &'a mut Progress<'b>,
}

impl<H: Hypervisor> Giver<'_, '_, H> {
    /// Promises memory, all of it on demand: whether that could be; `None` where the hypervisor makes no such promises.
    fn promise(&mut self, maximum: u64) -> Result<Option<bool>, Error> {
        let mut extents: Extents = layout::banks(maximum)?.iter().flat_map(layout::extents).collect();
        let Some((order, frames)) = extents.first_mut() else { return Ok(None) };
        let one = frames.remove(0);
        if self.populate(&[one], *order, XENMEMF_POPULATE_ON_DEMAND)? == 0 {
            return Ok(None);
        }
        self.give(extents, XENMEMF_POPULATE_ON_DEMAND).map(Some)
    }

    fn populate(&self, frames: &[u64], order: u32, flags: u32) -> Result<usize, Error> {
        self.xen.populate(self.domain, frames, order, flags).map_err(at("give it memory"))
    }

    /// Gives extents; whether it could be all of them. Where there is no block of a size any more, smaller ones do as well.
    fn give(&mut self, extents: Extents, flags: u32) -> Result<bool, Error> {
        for (order, frames) in extents {
            for frames in frames.chunks(EXTENTS) {
                let mut count = 0;
                while count < frames.len() {
                    count += self.populate(&frames[count..], order, flags)?;
                    let Some(&missing) = frames.get(count) else { break };
                    let Some(smaller) = SMALLER.into_iter().find(|smaller| *smaller < order) else {
                        return Ok(false);
                    };
                    let pieces = (missing..missing + (1 << order)).step_by(1 << smaller).collect();
                    if flags != 0 || !self.give(vec![(smaller, pieces)], flags)? {
                        return Ok(false);
                    }
                    count += 1;
                }
                if flags == 0 {
                    self.done = (self.done + ((frames.len() as u64) << order) * PAGE).min(self.total);
                    (self.progress)(Step::Memory { done: self.done, total: self.total });
                }
            }
        }
        Ok(true)
    }
}

/// Orders to try after a larger one.
const SMALLER: [u32; 2] = [9, 0];

/// Why there is not enough memory.
fn no_memory<H: Hypervisor>(xen: &H, config: &DomainConfig) -> Error {
    let free = xen.host().map_or(0, |host| host.free_pages.saturating_sub(host.outstanding_pages));
    Error::NoMemory { needed: config.memory_kib >> 10, free: free >> 8, hint: String::new() }
}

/// Its layout and its device tree.
fn describe<H: Hypervisor>(
    xen: &H,
    domain: DomId,
    arch: ArchDomainConfig,
    config: &DomainConfig,
    images: &Images,
    visible: u64,
) -> Result<(Layout, Vec<u8>), Error> {
    let memory = config.memory_kib << 10;
    let grows = config.maxmem_kib << 10 > visible;
    let info = xen.domain(domain).map_err(at("look at it"))?.ok_or(Error::Vanished)?;
    let ramdisk = images.ramdisk.as_ref().map_or(0, Module::bytes);
    let command_line = command_line(config, grows, visible > memory);
    let banks = layout::banks(visible)?;
    let gaps = layout::gaps(&banks, u32::from(info.gpaddr_bits));
    let gic = if arch.gic_version == XEN_DOMCTL_CONFIG_GIC_V3 { Gic::V3 } else { Gic::V2 };
    let tree = |ramdisk: Option<Range<u64>>| {
        tree::build(&Machine {
            cpus: config.maxvcpus,
            gic,
            clock_frequency: arch.clock_frequency,
            banks: &banks,
            gaps: &gaps,
            command_line: &command_line,
            ramdisk,
            grows,
        })
    };
    // Its size does not depend on where the initramfs is.
    let size = tree((ramdisk > 0).then_some(0..0)).len() as u64;
    let layout = layout::place(memory, visible, images.kernel.end(), ramdisk, size)?;
    let blob = tree(layout.ramdisk.clone());
    Ok((layout, blob))
}

/// The kernel's command line, with what the user has not said otherwise: memory that is added is put to use at once; and
/// where memory comes on demand, Linux's balloon does not clear what it gives back, because a page that was never touched
/// costs nothing then, and Nacelle clears every page before another domain gets it.
///
/// What follows a word `--` is for the guest's init (Linux's kernel-parameters.txt), so it stays behind what is added.
fn command_line(config: &DomainConfig, grows: bool, on_demand: bool) -> String {
    let mut words: Vec<&str> = config.cmdline.as_deref().unwrap_or_default().split(' ').collect();
    let for_init = words.iter().position(|&word| word == "--").unwrap_or(words.len());
    let for_init = words.split_off(for_init);
    for (wanted, name, added) in [
        (grows, "memhp_default_state=", "memhp_default_state=online"),
        (on_demand, "xen_scrub_pages=", "xen_scrub_pages=0"),
    ] {
        if wanted && !words.iter().any(|word| word.starts_with(name)) {
            words.push(added);
        }
    }
    words.extend(for_init);
    words.join(" ").trim_start().to_owned()
}

/// Fills a slice from an offset on.
type Read<'a> = dyn Fn(u64, &mut [u8]) -> Result<(), Error> + 'a;

/// A file, and where in it the bytes begin.
type Source<'a> = Option<(&'a FilePages, u64)>;

/// Copies kernel and initramfs, window by window; from the file's own pages where that is possible.
fn load<M: WriteMemory>(
    guest: &mut M,
    images: &Images,
    layout: &Layout,
    progress: &mut Progress<'_>,
) -> Result<(), Error> {
    let kernel = &images.kernel;
    let ramdisk = images.ramdisk.as_ref().zip(layout.ramdisk.as_ref());
    let total = kernel.segments().iter().map(|segment| segment.bytes).sum::<u64>()
        + ramdisk.map_or(0, |(module, _)| module.bytes());
    let mut done = 0;
    // Begins where a page does, so that each page comes from one page.
    let mut buffer = vec![0; WINDOW + PAGE as usize];
    let start = buffer.as_ptr().align_offset(PAGE as usize).min(PAGE as usize);
    let mut copy = |address: u64, bytes: u64, from: Source<'_>, read: &Read<'_>| {
        let mut offset = 0;
        while offset < bytes {
            let within = ((address + offset) % PAGE) as usize;
            let length = (WINDOW - within).min((bytes - offset) as usize);
            let written = match from {
                Some((pages, start)) => guest.write_file(address + offset, pages, start + offset, length),
                None => {
                    let part = &mut buffer[start + within..start + within + length];
                    read(offset, part)?;
                    guest.write(address + offset, part)
                }
            };
            written.map_err(at("copy its kernel and initramfs"))?;
            offset += length as u64;
            done += length as u64;
            progress(Step::Load { done, total });
        }
        Ok::<(), Error>(())
    };
    for segment in kernel.segments() {
        let from = kernel.pages().map(|pages| (pages, segment.offset));
        copy(segment.address, segment.bytes, from, &|offset, to| {
            Ok(kernel.read_at(segment.offset + offset, to)?)
        })?;
    }
    if let Some((module, range)) = ramdisk {
        copy(range.start, module.bytes(), module.pages().map(|pages| (pages, 0)), &|offset, to| {
            Ok(module.read_at(offset, to)?)
        })?;
    }
    Ok(())
}
