//! The Raspberry Pi: whether this is the right one, and what of it Nacelle keeps beside GIC and console.
//!
//! From Linux: `bcm283x.dtsi`, `bcm2711.dtsi`, the bindings `soc/bcm/brcm,bcm2835-pm.yaml` and `soc/bcm/bcm2835-aux`.

use super::{Interrupt, interrupts};
use crate::devicetree::{DeviceTree, Node, PaRange};

/// A Raspberry Pi 4, 400 or Compute Module 4. What its tree does not have is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaspberryPi4 {
    /// Power management, with the watchdog that resets the machine.
    pub power: Option<PaRange>,
    /// The pins.
    pub gpio: Option<PaRange>,
    /// The auxiliary block, mini-UART and two SPIs, which share a page and an interrupt.
    pub aux: Option<(PaRange, Option<Interrupt>)>,
}

/// Trees of Linux 5.1 and later name the block as the first two do, older ones as the last.
const POWER: [&str; 3] = ["brcm,bcm2711-pm", "brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt"];

fn root_is(tree: &DeviceTree<'_>, soc: &str) -> bool {
    tree.at_path("/", |root| root.is_compatible(&[soc])).unwrap_or(false)
}

/// What the tree says of one, if it is one's. `gic` is the GIC's phandle.
pub(super) fn read(tree: &DeviceTree<'_>, gic: Option<u32>) -> Option<RaspberryPi4> {
    if !root_is(tree, "brcm,bcm2711") {
        return None;
    }
    let first = |kinds: &[&str]| {
        let range = |node: &Node<'_, '_>| node.reg().first().copied().filter(|range| !range.is_empty());
        tree.first(|node| node.is_compatible(kinds), range).flatten()
    };
    let interrupt = |node: &Node<'_, '_>| interrupts(node, gic).first().copied();
    let aux_interrupt = tree.first(|node| node.is_compatible(&[super::uart::MINI_UART]), interrupt).flatten();
    Some(RaspberryPi4 {
        power: first(&POWER),
        gpio: first(&["brcm,bcm2711-gpio"]),
        aux: first(&["brcm,bcm2835-aux"]).map(|range| (range, aux_interrupt)),
    })
}

/// The name of the Raspberry Pi whose tree this is, if Nacelle does not run on it.
pub fn wrong_raspberry_pi(tree: &DeviceTree<'_>) -> Option<&'static str> {
    let models = [
        ("brcm,bcm2712", "Raspberry Pi 5"),
        ("brcm,bcm2837", "Raspberry Pi 3"),
        ("brcm,bcm2836", "Raspberry Pi 2"),
        ("brcm,bcm2835", "Raspberry Pi 1 or Zero"),
    ];
    models.into_iter().find(|(soc, _)| root_is(tree, soc)).map(|(_, model)| model)
}
