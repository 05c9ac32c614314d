//! Reading the firmware's device tree: nodes with the way to them, and addresses as the CPU sees them.
//!
//! A thin layer over `fdt`, which finds nodes and properties. This adds what needs a node's ancestors: translation
//! of `reg` through every `ranges` up to the root, and the interrupt parent. [`DeviceTree::new`] runs the
//! [structural check](check()) first. Nothing here allocates, so it serves before there is a heap.

use core::fmt;
use core::ops::ControlFlow;

use arrayvec::ArrayVec;
use fdt::Fdt;
use fdt::node::FdtNode;
use stage2::addr::Pa;

mod check;
#[cfg(test)]
pub(crate) mod fuzz;

pub use check::{DtbError, HEADER_SIZE, MAX_DEPTH, MAX_SIZE, check, prepare, total_size};

/// A range of physical addresses: `start` belongs to it, `end` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaRange {
    /// First byte.
    pub start: Pa,
    /// First byte beyond.
    pub end: Pa,
}

impl PaRange {
    /// `size` bytes from `start`; `None` if that leaves the address space.
    pub const fn new(start: Pa, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Bytes in it.
    pub const fn size(&self) -> u64 {
        self.end.raw().saturating_sub(self.start.raw())
    }

    /// Whether no byte belongs to it.
    pub const fn is_empty(&self) -> bool {
        self.end.raw() <= self.start.raw()
    }

    /// Whether `address` belongs to it.
    pub fn contains(&self, address: Pa) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether some byte belongs to both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The whole pages (4 KiB) that its bytes lie in.
    pub fn page_cover(&self) -> Self {
        let end = self.end.align_up(stage2::addr::PAGE_SIZE).unwrap_or(Pa::new(!stage2::addr::PAGE_MASK));
        Self { start: self.start.align_down(stage2::addr::PAGE_SIZE), end }
    }
}

impl fmt::Display for PaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.start, self.end)
    }
}

/// How many entries of one `reg` are looked at.
pub const MAX_REG: usize = 32;

/// A checked device tree.
#[derive(Clone, Copy)]
pub struct DeviceTree<'a> {
    fdt: Fdt<'a>,
    blob: &'a [u8],
}

impl<'a> DeviceTree<'a> {
    /// The tree in `blob`. Bytes beyond its `totalsize` are ignored.
    ///
    /// # Errors
    /// What [`check`] finds.
    pub fn new(blob: &'a [u8]) -> Result<Self, DtbError> {
        check(blob)?;
        let fdt = Fdt::new(blob).map_err(|_| DtbError::TooShort(blob.len()))?;
        let blob = blob.get(..fdt.total_size()).unwrap_or(blob);
        Ok(Self { fdt, blob })
    }

    /// The blob, exactly `totalsize` bytes.
    pub fn blob(&self) -> &'a [u8] {
        self.blob
    }

    /// The `/memreserve/` entries.
    pub fn memory_reservations(&self) -> impl Iterator<Item = PaRange> + '_ {
        self.fdt
            .memory_reservations()
            .filter_map(|r| PaRange::new(Pa::new(r.address() as u64), r.size() as u64))
    }

    /// Calls `visit` for every node, parents before children, until it breaks.
    pub fn walk<T>(&self, mut visit: impl FnMut(&Node<'_, 'a>) -> ControlFlow<T>) -> Option<T> {
        let root = self.fdt.find_node("/")?;
        let mut node = Node { tree: self, path: ArrayVec::new() };
        descend(&mut node, root, &mut visit).break_value()
    }

    /// Calls `found` with the first node that `matches`, and returns its answer.
    pub fn first<T>(
        &self,
        mut matches: impl FnMut(&Node<'_, 'a>) -> bool,
        mut found: impl FnMut(&Node<'_, 'a>) -> T,
    ) -> Option<T> {
        self.walk(
            |node| {
                if matches(node) { ControlFlow::Break(found(node)) } else { ControlFlow::Continue(()) }
            },
        )
    }

    /// Calls `found` with the node at `path`, or with the one that an alias of that name stands for. A `:` and what
    /// follows is ignored, as in `stdout-path`. A unit address may be left out where that is clear enough.
    pub fn at_path<T>(&self, path: &str, found: impl FnMut(&Node<'_, 'a>) -> T) -> Option<T> {
        let path = path.split(':').next()?;
        let path = if path.starts_with('/') {
            path
        } else {
            let aliases = self.fdt.find_node("/aliases")?;
            text(aliases.property(path)?.value)?
        };
        let mut wanted: ArrayVec<&str, MAX_DEPTH> = ArrayVec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            wanted.try_push(part).ok()?;
        }
        self.first(
            |node| {
                let names = &node.path.get(1..).unwrap_or_default();
                names.len() == wanted.len()
                    && names.iter().zip(&wanted).all(|(have, want)| {
                        have.name == *want
                            || (!want.contains('@') && have.name.split('@').next() == Some(want))
                    })
            },
            found,
        )
    }
}

impl fmt::Debug for DeviceTree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceTree").field("size", &self.blob.len()).finish()
    }
}

fn descend<'b, 'a, T>(
    node: &mut Node<'b, 'a>,
    next: FdtNode<'b, 'a>,
    visit: &mut impl FnMut(&Node<'b, 'a>) -> ControlFlow<T>,
) -> ControlFlow<T> {
    // The check has bounded the depth; a tree that is deeper all the same is cut off here.
    if node.path.try_push(next).is_err() {
        return ControlFlow::Continue(());
    }
    visit(node)?;
    for child in next.children() {
        descend(node, child, visit)?;
    }
    node.path.pop();
    ControlFlow::Continue(())
}

/// A node and its ancestors.
pub struct Node<'b, 'a> {
    tree: &'b DeviceTree<'a>,
    /// From the root to the node itself; never empty once a caller sees it.
    path: ArrayVec<FdtNode<'b, 'a>, MAX_DEPTH>,
}

impl<'b, 'a> Node<'b, 'a> {
    fn own(&self) -> Option<FdtNode<'b, 'a>> {
        self.path.last().copied()
    }

    /// The tree it stands in.
    pub fn tree(&self) -> &'b DeviceTree<'a> {
        self.tree
    }

    /// Name with unit address; empty for the root.
    pub fn name(&self) -> &'a str {
        if self.path.len() <= 1 { "" } else { self.own().map_or("", |node| node.name) }
    }

    /// How many ancestors it has.
    pub fn depth(&self) -> usize {
        self.path.len().saturating_sub(1)
    }

    /// Name of the parent, with unit address; empty for the root's children.
    pub fn parent_name(&self) -> &'a str {
        match self.path.len().checked_sub(2) {
            None | Some(0) => "",
            Some(parent) => self.path[parent].name,
        }
    }

    /// Its properties: names and values.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a, 'b> {
        self.own()
            .into_iter()
            .flat_map(|node| node.properties().map(|property| (property.name, property.value)))
    }

    /// The value of a property.
    pub fn property(&self, name: &str) -> Option<&'a [u8]> {
        Some(self.own()?.property(name)?.value)
    }

    /// A property that is a string, without its NUL.
    pub fn string(&self, name: &str) -> Option<&'a str> {
        text(self.property(name)?)
    }

    /// A property that is one cell.
    pub fn cell(&self, name: &str) -> Option<u32> {
        Some(u32::from_be_bytes(self.property(name)?.try_into().ok()?))
    }

    /// A property that is a number of one or two cells.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.property(name)?;
        match value.len() {
            4 | 8 => Some(number(value)),
            _ => None,
        }
    }

    /// The strings of `compatible`, most specific first.
    pub fn compatible(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.property("compatible").into_iter().flat_map(strings)
    }

    /// Whether `compatible` names one of these.
    pub fn is_compatible(&self, known: &[&str]) -> bool {
        self.compatible().any(|name| known.contains(&name))
    }

    /// Whether `status` allows its use, its ancestors' likewise (Devicetree Specification, 2.3.4).
    pub fn is_enabled(&self) -> bool {
        self.path.iter().all(|node| {
            node.property("status").is_none_or(|status| matches!(text(status.value), Some("okay" | "ok")))
        })
    }

    /// Its `reg` as it stands: pairs of address and size in the parent's terms.
    pub fn raw_reg(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let (address, size) = self.parent_cells();
        let entry = (address + size) * 4;
        let value = self.property("reg").unwrap_or_default();
        let entries = if entry == 0 { [].chunks_exact(1) } else { value.chunks_exact(entry) };
        entries.map(move |entry| {
            let (start, size) = entry.split_at(address * 4);
            (number(start), number(size))
        })
    }

    /// Its `reg` in CPU physical addresses. Entries that no `ranges` makes visible to the CPU are left out.
    pub fn reg(&self) -> ArrayVec<PaRange, MAX_REG> {
        let mut ranges = ArrayVec::new();
        if self.parent_cells().0 > 2 {
            return ranges;
        }
        for (start, size) in self.raw_reg().take(MAX_REG) {
            if let Some(range) =
                self.translate(start, size).and_then(|start| PaRange::new(Pa::new(start), size))
            {
                ranges.push(range);
            }
        }
        ranges
    }

    /// The CPU physical address of bus address `address` of the node's parent bus, through every `ranges` up to the
    /// root; `None` where one is missing or does not cover `size` bytes.
    pub fn translate(&self, address: u64, size: u64) -> Option<u64> {
        let mut address = address;
        // The buses between the root and this node, innermost first.
        for bus in (1..self.path.len().checked_sub(1)?).rev() {
            let ranges = self.path[bus].property("ranges")?.value;
            if ranges.is_empty() {
                continue;
            }
            let (child, length) = cells(&self.path[bus]);
            let parent = cells(&self.path[bus - 1]).0;
            address = ranges.chunks_exact((child + parent + length).max(1) * 4).find_map(|entry| {
                let (from, rest) = entry.split_at(child * 4);
                let (to, span) = rest.split_at(parent * 4);
                let offset = address.checked_sub(number(from))?;
                if offset.checked_add(size)? > number(span) {
                    return None;
                }
                number(to).checked_add(offset)
            })?;
        }
        Some(address)
    }

    /// `#address-cells` and `#size-cells` that hold for its own `reg`.
    pub fn parent_cells(&self) -> (usize, usize) {
        match self.path.len().checked_sub(2) {
            Some(parent) => cells(&self.path[parent]),
            None => (2, 1),
        }
    }

    /// The phandle of its interrupt parent, its own or inherited.
    pub fn interrupt_parent(&self) -> Option<u32> {
        let value = self.path.iter().rev().find_map(|node| node.property("interrupt-parent"))?.value;
        Some(u32::from_be_bytes(value.try_into().ok()?))
    }

    /// Its phandle.
    pub fn phandle(&self) -> Option<u32> {
        self.cell("phandle").or_else(|| self.cell("linux,phandle"))
    }
}

/// Shows the full path.
impl fmt::Display for Node<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.len() <= 1 {
            return f.write_str("/");
        }
        self.path.iter().skip(1).try_for_each(|node| write!(f, "/{}", node.name))
    }
}

fn cells(node: &FdtNode<'_, '_>) -> (usize, usize) {
    let sizes = node.cell_sizes();
    (sizes.address_cells, sizes.size_cells)
}

/// The low 64 bits of a big-endian number.
pub(crate) fn number(cells: &[u8]) -> u64 {
    cells.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// A string property's value without its NUL; `None` if it is not one string of UTF-8.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    core::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok().filter(|text| !text.contains('\0'))
}

/// The strings of a list, up to the first that is not UTF-8.
pub(crate) fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    value
        .split(|&byte| byte == 0)
        .map_while(|string| core::str::from_utf8(string).ok())
        .filter(|string| !string.is_empty())
}
