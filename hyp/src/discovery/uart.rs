//! The console's UART: which node it is, and what drives it.

use super::{DiscoveryError, Interrupt, Text, gic, interrupts, malformed, text};
use crate::devicetree::{DeviceTree, Node, PaRange};

/// `compatible` of the UARTs that the console driver knows: the PL011, its subset that servers have, and the Raspberry
/// Pi's mini-UART.
pub const UART: [&str; 3] = ["arm,pl011", "arm,sbsa-uart", MINI_UART];
pub(super) const MINI_UART: &str = "brcm,bcm2835-aux-uart";

/// What drives a UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm's PL011, or SBSA's subset of it.
    Pl011,
    /// The Raspberry Pi's mini-UART, much like a 16550.
    Mini,
}

/// A UART that can be the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// What drives it.
    pub kind: UartKind,
    /// Its registers.
    pub registers: PaRange,
    /// Its interrupt, if it is one of the GIC's.
    pub interrupt: Option<Interrupt>,
    /// Input clock in Hz, if the tree says.
    pub clock: Option<u32>,
    /// Path of its node.
    pub path: Text,
}

/// The console UART: the node at `path` (a path or an alias, `dtuart=`), or without one the tree's `stdout-path`.
/// `Ok(None)` if neither is given.
///
/// # Errors
/// There is no such node, or Nacelle has no driver for it.
pub fn uart(tree: &DeviceTree<'_>, path: Option<&str>) -> Result<Option<Uart>, DiscoveryError> {
    let from_tree = || {
        tree.at_path("/chosen", |node| {
            node.string("stdout-path").or_else(|| node.string("linux,stdout-path"))
        })
        .flatten()
    };
    let Some(path) = path.or_else(from_tree) else { return Ok(None) };
    let handle = gic(tree).ok().and_then(|(_, handle)| handle);
    let read = |node: &Node<'_, '_>| {
        if !node.is_compatible(&UART) {
            let kind = node.compatible().next().unwrap_or("");
            return Err(DiscoveryError::UnknownUart(text(format_args!("{node} is '{kind}'"))));
        }
        let registers = node.reg().first().copied().filter(|registers| !registers.is_empty());
        let clock = node.cell("clock-frequency").or_else(|| {
            let clocks = node.property("clocks")?;
            let handle = u32::from_be_bytes(*clocks.first_chunk()?);
            node.tree()
                .first(|clock| clock.phandle() == Some(handle), |clock| clock.cell("clock-frequency"))
                .flatten()
        });
        Ok(Uart {
            kind: if node.is_compatible(&[MINI_UART]) { UartKind::Mini } else { UartKind::Pl011 },
            registers: registers.ok_or_else(|| malformed(node, "reg"))?,
            interrupt: interrupts(node, handle).first().copied(),
            clock,
            path: text(node),
        })
    };
    tree.at_path(path, read).unwrap_or_else(|| Err(DiscoveryError::NoSuchUart(text(path)))).map(Some)
}
