//! Interrupt specifiers: from a device tree's cells to INTID and trigger.

use arrayvec::ArrayVec;
use gic::{IntId, Trigger};

use crate::devicetree::{Node, number};

/// An interrupt as a device tree describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub intid: IntId,
    /// How its line signals.
    pub trigger: Trigger,
}

/// How many interrupts of one node are looked at.
pub const MAX_INTERRUPTS: usize = 64;

/// Decodes a specifier for a GIC: type, number, flags; a fourth cell (an affinity set) is ignored. `None` for the
/// extended ranges, which Nacelle does not use, and for what the binding does not know
/// (Linux, Documentation/devicetree/bindings/interrupt-controller/arm,gic.yaml).
pub fn decode(specifier: &[u32]) -> Option<Interrupt> {
    let [kind, number, flags, ..] = *specifier else { return None };
    let intid = match kind {
        0 => IntId::spi(number)?,
        1 => IntId::ppi(number)?,
        _ => return None,
    };
    // 1 and 2 are the edges, 4 and 8 the levels; 0 leaves it to the reset value, which is level.
    let trigger = if flags & 0xf == 1 || flags & 0xf == 2 { Trigger::Edge } else { Trigger::Level };
    Some(Interrupt { intid, trigger })
}

/// The node's interrupts at the GIC with phandle `gic`, by `interrupts-extended` or `interrupts`. Stops at the first
/// that cannot be decoded. Those that go to another controller are left out, so positions hold only where all go to
/// the GIC.
pub fn interrupts(node: &Node<'_, '_>, gic: Option<u32>) -> ArrayVec<Interrupt, MAX_INTERRUPTS> {
    interrupts_with(node, gic, |handle| {
        node.tree()
            .first(|node| node.phandle() == Some(handle), |node| node.cell("#interrupt-cells"))
            .flatten()
    })
}

/// The same, with `cells` to look up a controller's `#interrupt-cells`: for whoever asks often.
pub fn interrupts_with(
    node: &Node<'_, '_>,
    gic: Option<u32>,
    cells: impl Fn(u32) -> Option<u32>,
) -> ArrayVec<Interrupt, MAX_INTERRUPTS> {
    if let Some(extended) = node.property("interrupts-extended") {
        return read_extended(extended, gic, cells);
    }
    let Some(value) = node.property("interrupts") else { return ArrayVec::new() };
    if gic.is_some() && node.interrupt_parent().is_some_and(|parent| Some(parent) != gic) {
        return ArrayVec::new();
    }
    read(value, gic.and_then(cells).unwrap_or(3) as usize)
}

/// The first interrupt of the GIC's own node: its maintenance interrupt.
pub(super) fn of_controller(node: &Node<'_, '_>) -> Option<Interrupt> {
    let cells = node.cell("#interrupt-cells").unwrap_or(3) as usize;
    match node.property("interrupts-extended") {
        Some(extended) => read(extended.get(4..)?, cells).first().copied(),
        None => read(node.property("interrupts")?, cells).first().copied(),
    }
}

fn read(value: &[u8], cells: usize) -> ArrayVec<Interrupt, MAX_INTERRUPTS> {
    if !(3..=4).contains(&cells) {
        return ArrayVec::new();
    }
    value.chunks_exact(cells * 4).map_while(decode_bytes).take(MAX_INTERRUPTS).collect()
}

fn decode_bytes(specifier: &[u8]) -> Option<Interrupt> {
    let cells: ArrayVec<u32, 4> = specifier.chunks_exact(4).take(4).map(|cell| number(cell) as u32).collect();
    decode(&cells)
}

fn read_extended(
    mut value: &[u8],
    gic: Option<u32>,
    cells: impl Fn(u32) -> Option<u32>,
) -> ArrayVec<Interrupt, MAX_INTERRUPTS> {
    let mut found = ArrayVec::new();
    while let Some((parent, rest)) = value.split_first_chunk::<4>() {
        let parent = u32::from_be_bytes(*parent);
        let length = cells(parent).and_then(|cells| (cells as usize).checked_mul(4));
        let Some((specifier, rest)) = length.and_then(|length| rest.split_at_checked(length)) else { break };
        if gic.is_none_or(|gic| gic == parent)
            && let Some(interrupt) = decode_bytes(specifier)
            && found.try_push(interrupt).is_err()
        {
            break;
        }
        value = rest;
    }
    found
}
