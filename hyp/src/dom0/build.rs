//! Making dom0 out of its plan: frames, stage 2, copies, vCPUs. After that the boot modules' memory is free.
//!
//! Order matters in one place: the memory is taken as soon as its place is chosen, before anything is allocated that could
//! land there.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

use log::{info, warn};
use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::hvm::{self, Index};
use stage2::{Access, Attributes, BlockSize, Geometry, Ipa, MemoryType, PAGE_SIZE, Pa, PageType, Pages};

use super::devices::{Kept, merge, subtract};
use super::layout::{GRANULE, Layout, Sizes};
use super::{Dom0Gic, Dom0Plan, EVENT_PPI, Inputs, PlanError, layout, plan};
use crate::arch;
use crate::bundle::{self, BundleError};
use crate::cmdline::Options;
use crate::devicetree::{DeviceTree, PaRange};
use crate::discovery::{Machine, ModuleKind, Uart};
use crate::domain::{self, Domain, DomainConfig};
use crate::image::{Image, ImageError, LoadError};
use crate::mm::{MemoryRange, block::Block, frame_table::State, memory};
use crate::p2m::{P2m, P2mConfig};
use crate::sched::{self, CpuMask};
use crate::vcpu::{Vcpu, VcpuId};
use crate::vgic::{Frames, VirtualGic};

/// Grant-table frames that dom0 may have (Xen's default, `gnttab_max_frames`).
const MAX_GRANT_FRAMES: u32 = 64;
/// Event-channel ports that dom0 may have: all that the FIFO ABI can name.
const MAX_EVENT_PORTS: u32 = 1 << 17;

/// Pages for stage-2 tables that are dom0's from the start: enough to map a guest's kernel and initramfs page by page.
const KEPT_TABLES: usize = 128;

/// Why dom0 could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// Neither a kernel module nor an initrd that could be a bundle.
    NoKernel,
    /// A boot module does not lie in RAM.
    ModuleOutsideRam(PaRange),
    /// The initrd is no bundle, and there is no kernel module.
    Bundle(BundleError),
    /// The kernel.
    Image(ImageError),
    /// There is no plan.
    Plan(PlanError),
    /// The virtual GIC cannot be made.
    Gic(gic::ConfigError),
    /// Something that the plan found free or mappable is not: what, and where.
    Refused(&'static str, PaRange, Errno),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKernel => write!(
                f,
                "no kernel: pass one as a boot module (/chosen node with compatible \"multiboot,kernel\") or in a \
                 bundle as the initrd"
            ),
            Self::ModuleOutsideRam(range) => write!(f, "boot module {range} does not lie in RAM"),
            Self::Bundle(error) => error.fmt(f),
            Self::Image(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::Gic(error) => write!(f, "virtual interrupt controller: {error:?}"),
            Self::Refused(what, range, errno) => write!(f, "{what} {range}: {errno:?}"),
        }
    }
}

impl core::error::Error for BuildError {}

impl From<PlanError> for BuildError {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// What dom0 starts with, where the boot loader left it.
#[derive(Clone, Copy, Debug)]
struct Files<'a> {
    kernel: &'a [u8],
    ramdisk: &'a [u8],
    bootargs: &'a str,
}

/// Builds dom0 and makes its first vCPU runnable on the `online` CPUs.
///
/// # Errors
/// See [`BuildError`]. Then there is no dom0; what was taken for it is not given back.
pub fn start(
    tree: &DeviceTree<'_>,
    machine: &Machine<'_>,
    options: &Options<'_>,
    console: Option<&Uart>,
    geometry: Geometry,
    online: CpuMask,
) -> Result<(), BuildError> {
    let files = files(machine)?;
    let image = Image::parse(files.kernel).map_err(BuildError::Image)?;
    let sizes = Sizes {
        text_offset: image.text_offset(),
        kernel: image.memory_size(),
        initrd: files.ramdisk.len() as u64,
    };
    let (layout, blocks) = take_memory(machine, options, &sizes)?;
    let (kept_ranges, kept_interrupts) = machine.kept(console);
    let inputs = Inputs {
        tree,
        machine,
        options,
        bootargs: files.bootargs,
        kept: Kept { ranges: &kept_ranges, interrupts: &kept_interrupts },
        ipa_bits: geometry.ipa_bits(),
    };
    let plan = plan(&inputs, layout)?;
    let domain = build(&plan, blocks, geometry)?;
    load(&domain.p2m, &plan, &image, files.ramdisk)?;
    release_modules(tree, machine);
    run(&domain, &plan, online);
    Ok(())
}

/// Finds dom0's parts among the boot modules, or in the bundle.
fn files<'a>(machine: &'a Machine<'_>) -> Result<Files<'a>, BuildError> {
    let chosen = &machine.chosen;
    let read = |range: PaRange| {
        if !machine.memory.iter().any(|bank| bank.start <= range.start && range.end <= bank.end) {
            return Err(BuildError::ModuleOutsideRam(range));
        }
        // SAFETY: RAM, by the check above. The memory manager was told to leave it alone, and until
        // `release_modules`, after the last use of the slice, nothing writes there.
        Ok(unsafe { arch::phys::boot_module(range.start, range.size() as usize) })
    };
    for kind in [ModuleKind::Kernel, ModuleKind::Ramdisk] {
        if chosen.modules.iter().filter(|module| module.kind == kind).count() > 1 {
            warn!("dom0: more than one {kind:?} module; the first is used");
        }
    }
    if let Some(kernel) = chosen.module(ModuleKind::Kernel) {
        let ramdisk = chosen.module(ModuleKind::Ramdisk).map(|module| module.range).or(chosen.initrd);
        return Ok(Files {
            kernel: read(kernel.range)?,
            ramdisk: ramdisk.map_or(Ok([].as_slice()), read)?,
            bootargs: kernel.bootargs.or(chosen.dom0_bootargs).unwrap_or(""),
        });
    }
    let bundle = read(chosen.initrd.ok_or(BuildError::NoKernel)?)?;
    let bundle = bundle::read(bundle).map_err(BuildError::Bundle)?;
    Ok(Files {
        kernel: bundle.kernel,
        ramdisk: bundle.ramdisk.unwrap_or(&[]),
        bootargs: bundle.cmdline.or(chosen.dom0_bootargs).unwrap_or(""),
    })
}

/// Chooses dom0's memory and takes it, in blocks as large as there are.
fn take_memory(
    machine: &Machine<'_>,
    options: &Options<'_>,
    sizes: &Sizes,
) -> Result<(Layout, Vec<Block>), BuildError> {
    // The heap may grow meanwhile, and into what was just found free. It has grown then, and will not again.
    const ATTEMPTS: u32 = 4;
    let mut attempt = 1;
    loop {
        let layout = layout(machine, options, &free_blocks(), sizes).map_err(PlanError::Layout)?;
        let taken: Result<Vec<Vec<Block>>, BuildError> = layout.banks.iter().map(take_bank).collect();
        match taken {
            Ok(blocks) => return Ok((layout, blocks.into_iter().flatten().collect())),
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => attempt += 1,
        }
    }
}

/// Free memory in blocks of 2 MiB, found by taking each for a moment.
fn free_blocks() -> Vec<PaRange> {
    let order = BlockSize::Block2M.order();
    let mut free = Vec::new();
    for (start, pages) in memory().banks() {
        let end = start.wrapping_add(pages).pa();
        let mut at = start.pa().align_up(GRANULE);
        while let Some(block) = at.and_then(|at| PaRange::new(at, GRANULE)).filter(|block| block.end <= end) {
            if memory().allocate_at(block.start.mfn(), order).is_some() {
                free.push(block);
            }
            at = Some(block.end);
        }
    }
    merge(free)
}

fn take_bank(bank: &PaRange) -> Result<Vec<Block>, BuildError> {
    let mut blocks = Vec::new();
    let mut at = bank.start;
    while at < bank.end {
        let take = |size: BlockSize| {
            let fits = at.is_aligned(size.bytes()) && bank.end.raw() - at.raw() >= size.bytes();
            if fits { memory().allocate_at(at.mfn(), size.order()) } else { None }
        };
        let block = take(BlockSize::Block1G).or_else(|| take(BlockSize::Block2M));
        let block = block.ok_or(BuildError::Refused("memory for dom0", *bank, Errno::ENOMEM))?;
        at = at.wrapping_add(block.pages().get() * PAGE_SIZE);
        blocks.push(block);
    }
    Ok(blocks)
}

/// The domain with its memory and devices, without content and without vCPUs that run.
fn build(plan: &Dom0Plan, blocks: Vec<Block>, geometry: Geometry) -> Result<Arc<Domain>, BuildError> {
    let whole = PaRange { start: Pa::ZERO, end: Pa::ZERO };
    let refused = |what| move |errno| BuildError::Refused(what, whole, errno);
    let memory_pages = Pages::from_bytes(plan.memory_size());
    // Tables of 4 KiB mappings for all of it, once over for what it maps of others, and some for devices.
    let table_limit = Pages::new(memory_pages.get() / 256 + 8192);
    let config = P2mConfig { owner: DomId::DOM0, is_direct_mapped: true, geometry, table_limit };
    let p2m = P2m::new(&config).map_err(refused("stage-2 tables"))?;
    let affinities: Vec<u64> = plan.vcpus.iter().map(|mpidr| mpidr.get()).collect();
    let frames = match plan.gic {
        Dom0Gic::V2 { gicd, .. } => Frames::V2 { distributor: Ipa::new(gicd.start.raw()) },
        Dom0Gic::V3 { gicd, redistributors, .. } => Frames::V3 {
            distributor: Ipa::new(gicd.start.raw()),
            redistributors: Ipa::new(redistributors.start.raw()),
        },
    };
    let vgic = VirtualGic::new(frames, &affinities, arch::spi_count()).map_err(BuildError::Gic)?;
    let domain = Arc::new(Domain::new(
        &DomainConfig {
            id: DomId::DOM0,
            is_control: true,
            is_direct_mapped: true,
            max_grant_frames: MAX_GRANT_FRAMES,
            max_event_ports: MAX_EVENT_PORTS,
        },
        p2m,
        vgic,
    ));
    domain.p2m.keep_tables(KEPT_TABLES).map_err(refused("stage-2 tables"))?;
    domain.pages.set_maximum(memory_pages);
    give_memory(&domain, blocks)?;
    // Nacelle adds no attribute of its own to devices: dom0's tables say Device or Normal, and the stricter of the
    // two stages holds (DDI 0487, D8.6.6), as on Xen. Its prefetchable PCI windows may so be write-combining.
    let registers = Attributes::new(Access::RW, MemoryType::NormalWb, PageType::Mmio);
    for range in &plan.mmio {
        map(&domain, range, range.start, registers, "device registers")?;
    }
    for range in &plan.reserved {
        map(&domain, range, range.start, registers, "reserved memory")?;
    }
    if let Dom0Gic::V2 { gicc, gicv, .. } = plan.gic {
        map(&domain, &gicc, gicv.start, Attributes::MMIO, "GIC CPU interface")?;
    }
    let vcpus: Box<[Arc<Vcpu>]> = (0u32..)
        .zip(&affinities)
        .map(|(number, &affinity)| {
            Arc::new(Vcpu::new(&domain, VcpuId::new(number), arch::new_vcpu_state(affinity, 0)))
        })
        .collect();
    domain.set_vcpus(vcpus);
    for vcpu in domain.vcpus() {
        arch::back_virtual_timer(&domain, vcpu.id);
    }
    Ok(domain)
}

/// Gives dom0 its memory, 1:1. As it is: no other guest has had it, no cache has a dirty line of it
/// ([`Block::give_as_found`]), and to clear it would take longer than all the rest of boot.
fn give_memory(domain: &Domain, blocks: Vec<Block>) -> Result<(), BuildError> {
    domain.p2m.edit(|batch| {
        for block in blocks {
            let (start, pages) = (block.mfn().pa(), block.pages());
            let range = PaRange { start, end: start.wrapping_add(pages.get() * PAGE_SIZE) };
            let refused = |errno| BuildError::Refused("memory for dom0", range, errno);
            domain.pages.charge(pages).map_err(refused)?;
            let mfn = block.give_as_found(DomId::DOM0);
            batch.map_own(Ipa::new(start.raw()).gfn(), mfn, pages).map_err(refused)?;
        }
        Ok(())
    })
}

fn map(
    domain: &Domain,
    range: &PaRange,
    to: Pa,
    attributes: Attributes,
    what: &'static str,
) -> Result<(), BuildError> {
    let pages = Pages::from_bytes(range.size());
    domain
        .p2m
        .edit(|batch| batch.map_device(Ipa::new(range.start.raw()).gfn(), to.mfn(), pages, attributes))
        .map_err(|errno| BuildError::Refused(what, *range, errno))
}

/// Puts kernel, initramfs and device tree in their places.
fn load(p2m: &P2m, plan: &Dom0Plan, image: &Image<'_>, ramdisk: &[u8]) -> Result<(), BuildError> {
    image.load(|offset, bytes| write(p2m, plan.kernel_entry.wrapping_add(offset), bytes)).map_err(
        |error| match error {
            LoadError::Image(error) => BuildError::Image(error),
            LoadError::Sink(error) => error,
        },
    )?;
    if let Some(initrd) = plan.initrd {
        write(p2m, initrd.start, ramdisk)?;
    }
    write(p2m, plan.dtb_address, &plan.dtb)?;
    // The kernel was written as data and is fetched as instructions: after the clean of the data, the stale
    // instructions must go (DDI 0487, B2.7.4.2).
    arch::phys::invalidate_instructions();
    Ok(())
}

/// Copies into dom0's memory, through to where a guest with its caches off finds it.
fn write(p2m: &P2m, at: Pa, bytes: &[u8]) -> Result<(), BuildError> {
    let refused = |errno| {
        let range = PaRange::new(at, bytes.len() as u64).unwrap_or_default();
        BuildError::Refused("dom0's own memory", range, errno)
    };
    let mut at = at;
    let mut bytes = bytes;
    while !bytes.is_empty() {
        let room = (PAGE_SIZE - at.page_offset()) as usize;
        let (piece, rest) = bytes.split_at(room.min(bytes.len()));
        let page = p2m.get_own(at.mfn()).map_err(refused)?;
        page.copy_in(at.page_offset() as usize, piece).map_err(refused)?;
        page.clean_invalidate();
        at = at.wrapping_add(piece.len() as u64);
        bytes = rest;
    }
    Ok(())
}

/// Frees the memory of the boot modules, which have been copied.
fn release_modules(tree: &DeviceTree<'_>, machine: &Machine<'_>) {
    let chosen = &machine.chosen;
    let modules = chosen.modules.iter().map(|module| module.range).chain(chosen.initrd);
    let modules = merge(modules.map(|range| range.page_cover()).collect());
    // A page that something else is in as well stays.
    let dtb = PaRange::new(Pa::new(tree.blob().as_ptr() as u64), tree.blob().len() as u64);
    let others: Vec<PaRange> = machine
        .reserved
        .iter()
        .map(|reserved| reserved.range)
        .chain(dtb)
        .map(|range| range.page_cover())
        .collect();
    for range in subtract(modules, &others) {
        for page in 0..Pages::from_bytes(range.size()).get() {
            let mfn = range.start.mfn().wrapping_add(Pages::new(page));
            if memory().frame(mfn).is_some_and(|frame| frame.state() == State::RESERVED) {
                // SAFETY: the modules have been copied, and no slice of them is used any more; no reservation, and
                // not the device tree, has a part in the page.
                unsafe { memory().release_reserved(MemoryRange { start: mfn.pa(), pages: Pages::ONE }) };
            }
        }
    }
}

/// `HVM_PARAM_CALLBACK_IRQ` for a PPI, active low, as Xen has it.
fn callback_irq() -> u64 {
    hvm::HVM_PARAM_CALLBACK_TYPE_PPI << hvm::HVM_PARAM_CALLBACK_IRQ_TYPE_MASK.trailing_zeros()
        | hvm::HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL
            << hvm::HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_MASK.trailing_zeros()
        | u64::from(EVENT_PPI + 16)
}

/// Routes interrupts, enters the domain in the list, and starts its first vCPU.
fn run(domain: &Arc<Domain>, plan: &Dom0Plan, online: CpuMask) {
    for interrupt in &plan.interrupts {
        if !arch::route_to_control(domain, interrupt.intid, interrupt.trigger) {
            warn!("dom0: {} cannot be routed to it", interrupt.intid);
        }
    }
    for bank in &plan.banks {
        info!("dom0: RAM {bank}");
    }
    if let Some(memory) = &plan.out_of_reach {
        let within = memory.within >> 20;
        warn!("dom0: {memory}: its kernel copies what they transfer there; dom0_mem={within}M avoids that");
    }
    info!(
        "dom0: {} MiB, {} vCPUs, kernel at {:#x}, device tree at {:#x}",
        plan.memory_size() >> 20,
        plan.vcpus.len(),
        plan.kernel_entry,
        plan.dtb_address
    );
    domain.hvm_params.lock()[Index::CallbackIrq as usize] = callback_irq();
    domain::insert(domain.clone());
    for vcpu in domain.vcpus() {
        sched::add(vcpu, &domain.share, online);
    }
    if let Some(first) = domain.vcpu(VcpuId::new(0)) {
        first.is_up.store(true, Ordering::Release);
        arch::start_vcpu(first, plan.kernel_entry.raw(), plan.dtb_address.raw());
        sched::start(first);
    }
}
