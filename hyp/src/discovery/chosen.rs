//! `/chosen`: the command line and the boot modules.
//!
//! Modules come as child nodes (what QEMU's `guest-loader`, U-Boot and GRUB make for Xen; docs/misc/arm/device-tree/
//! booting.txt in Xen's tree describes them), or as one bundle in the place of a Linux initrd.

use arrayvec::ArrayVec;
use stage2::addr::Pa;

use super::{DiscoveryError, each, malformed};
use crate::devicetree::{DeviceTree, Node, PaRange, number};

/// What a boot module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// dom0's kernel.
    Kernel,
    /// dom0's initramfs.
    Ramdisk,
}

/// A boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// What it is.
    pub kind: ModuleKind,
    /// Where the boot loader put it.
    pub range: PaRange,
    /// The command line that came with it.
    pub bootargs: Option<&'a str>,
}

/// Boot modules at most: more than one of a kind is a mistake that gets reported.
pub const MAX_MODULES: usize = 8;

/// What the boot loader says.
#[derive(Clone, Debug, Default)]
pub struct Chosen<'a> {
    /// Nacelle's command line: `xen,xen-bootargs`, else `bootargs`.
    pub bootargs: &'a str,
    /// dom0's, where the module does not carry it: `xen,dom0-bootargs`, else `bootargs` beside `xen,xen-bootargs`.
    pub dom0_bootargs: Option<&'a str>,
    /// The modules, in the order of the tree.
    pub modules: ArrayVec<Module<'a>, MAX_MODULES>,
    /// What was passed as a Linux initrd: Nacelle's bundle, or the ramdisk of a kernel module.
    pub initrd: Option<PaRange>,
}

impl Chosen<'_> {
    /// The first module of that kind.
    pub fn module(&self, kind: ModuleKind) -> Option<&Module<'_>> {
        self.modules.iter().find(|module| module.kind == kind)
    }
}

/// Reads `/chosen`. A tree without it gives an empty answer.
///
/// # Errors
/// A module without a proper `reg`, too many modules, or an initrd with one end.
pub fn chosen<'a>(tree: &DeviceTree<'a>) -> Result<Chosen<'a>, DiscoveryError> {
    let mut chosen = Chosen::default();
    let mut root_cells = (2, 1);
    each(tree, |node| {
        match (node.depth(), node.name(), node.parent_name()) {
            (0, ..) => {
                let cell = |name, default| node.cell(name).map_or(default, |cells| cells as usize);
                root_cells = (cell("#address-cells", 2), cell("#size-cells", 1));
            }
            (1, "chosen", _) => {
                let ours = node.string("xen,xen-bootargs");
                let plain = node.string("bootargs");
                chosen.bootargs = ours.or(plain).unwrap_or("");
                chosen.dom0_bootargs = node.string("xen,dom0-bootargs").or(ours.and(plain));
                chosen.initrd = initrd(node)?;
            }
            (2, _, "chosen") => {
                if let Some(module) = module(node, root_cells, &chosen.modules)? {
                    chosen.modules.try_push(module).map_err(|_| DiscoveryError::TooMany("boot modules"))?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(chosen)
}

fn initrd(node: &Node<'_, '_>) -> Result<Option<PaRange>, DiscoveryError> {
    let (start, end) = ("linux,initrd-start", "linux,initrd-end");
    match (node.property(start), node.property(end)) {
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(malformed(node, end)),
        (None, Some(_)) => return Err(malformed(node, start)),
        (Some(_), Some(_)) => {}
    }
    let first = Pa::new(node.number(start).ok_or_else(|| malformed(node, start))?);
    let last = Pa::new(node.number(end).ok_or_else(|| malformed(node, end))?);
    if last < first {
        return Err(malformed(node, end));
    }
    let range = PaRange { start: first, end: last };
    Ok(if range.is_empty() { None } else { Some(range) })
}

fn module<'a>(
    node: &Node<'_, 'a>,
    root_cells: (usize, usize),
    earlier: &[Module<'_>],
) -> Result<Option<Module<'a>>, DiscoveryError> {
    let have = |kind| earlier.iter().any(|module| module.kind == kind);
    let kind = if node.is_compatible(&["multiboot,kernel", "xen,linux-zimage"]) {
        ModuleKind::Kernel
    } else if node.is_compatible(&["multiboot,ramdisk", "xen,linux-initrd"]) {
        ModuleKind::Ramdisk
    } else if node.is_compatible(&["multiboot,module"]) && !node.is_compatible(&["xen,xsm-policy"]) {
        // A module that does not say what it is: the first is the kernel, as on Xen.
        if have(ModuleKind::Kernel) { ModuleKind::Ramdisk } else { ModuleKind::Kernel }
    } else {
        return Ok(None);
    };
    // The cells of /chosen where it has any; the root's otherwise, since QEMU's guest-loader counts on that.
    let has_cells = node.tree().at_path("/chosen", |chosen| chosen.property("#address-cells").is_some());
    let (address, size) = if has_cells == Some(true) { node.parent_cells() } else { root_cells };
    let reg = node.property("reg").ok_or_else(|| malformed(node, "reg"))?;
    if !(1..=2).contains(&address) || !(1..=2).contains(&size) || reg.len() != (address + size) * 4 {
        return Err(malformed(node, "reg"));
    }
    let (start, size) = reg.split_at(address * 4);
    let range = PaRange::new(Pa::new(number(start)), number(size)).filter(|range| !range.is_empty());
    let range = range.ok_or_else(|| malformed(node, "reg"))?;
    Ok(Some(Module { kind, range, bootargs: node.string("bootargs") }))
}
