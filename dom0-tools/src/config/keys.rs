//! Every key of `xl.cfg` 4.17, and those of dynamic memory, and what becomes of it here.

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It is read.
    Served,
    /// It is left out with a warning: the domain is no other without it.
    Ignored(&'static str),
    /// It is refused, unless it asks for nothing: the domain would not be the one that was asked for.
    Refused(&'static str),
}

use Treatment::{Ignored, Refused, Served};

const X86: Treatment = Ignored("it has no meaning on Arm");
const LABELS: Treatment = Ignored("there are no security labels");
const RTDS: Treatment = Ignored("only the scheduler rtds has it");
const DISPLAY: Treatment = Ignored("there is no display, sound or keyboard to give");
const MODEL: Treatment = Ignored("no domain has a device model");
const NO_DEVICES: Treatment = Refused("no device of the host can be given to a domain");
const NO_BACKEND: Treatment = Refused("there is no backend for it");

/// The table, by key.
const KEYS: &[(&str, Treatment)] = &[
    ("acpi", Served),
    ("acpi_firmware", X86),
    ("acpi_laptop_slate", X86),
    ("acpi_s3", X86),
    ("acpi_s4", X86),
    ("altp2m", X86),
    ("altp2mhvm", X86),
    ("apic", X86),
    ("bios", X86),
    ("bios_path_override", X86),
    ("boot", X86),
    ("bootloader", Refused("there is no bootloader in dom0: name the kernel with 'kernel'")),
    ("bootloader_args", Ignored("there is no bootloader in dom0")),
    ("builder", Served),
    ("cap", Served),
    ("channel", NO_BACKEND),
    ("cmdline", Served),
    ("cpu_weight", Served),
    ("cpuid", X86),
    ("cpus", Served),
    ("cpus_soft", Served),
    ("device_model", MODEL),
    ("device_model_args", MODEL),
    ("device_model_args_hvm", MODEL),
    ("device_model_args_pv", MODEL),
    ("device_model_override", MODEL),
    ("device_model_stubdomain_override", MODEL),
    ("device_model_stubdomain_seclabel", MODEL),
    ("device_model_user", MODEL),
    ("device_model_version", MODEL),
    ("device_tree", Served),
    ("disk", Served),
    ("display", DISPLAY),
    ("dm_restrict", MODEL),
    ("driver_domain", Refused("only dom0 has drivers")),
    ("dtdev", NO_DEVICES),
    ("e820_host", X86),
    ("extra", Served),
    ("extratime", Ignored("only the scheduler sedf had it")),
    ("firmware", Refused("a domain boots its kernel directly: name it with 'kernel'")),
    ("firmware_override", X86),
    ("gfx_passthru", NO_DEVICES),
    ("gic_version", Served),
    ("hap", X86),
    ("hdtype", X86),
    ("hpet", X86),
    ("init_seclabel", LABELS),
    ("iomem", NO_DEVICES),
    ("ioports", NO_DEVICES),
    ("irqs", NO_DEVICES),
    ("kernel", Served),
    ("keymap", DISPLAY),
    ("latency", RTDS),
    ("localtime", X86),
    ("max_event_channels", Served),
    ("max_grant_frames", Served),
    ("max_grant_version", Served),
    ("max_maptrack_frames", Served),
    ("maxmem", Served),
    ("maxvcpus", Served),
    ("mca_caps", X86),
    ("memory", Served),
    ("memory_buffer", Served),
    ("memory_min", Served),
    ("memory_policy", Served),
    ("memory_weight", Served),
    ("mmio_hole", X86),
    ("ms_vm_genid", X86),
    ("msr_relaxed", X86),
    ("name", Served),
    ("nestedhvm", X86),
    ("nographic", DISPLAY),
    ("nomigrate", Ignored("no domain can be moved to another host")),
    ("nx", X86),
    ("on_crash", Served),
    ("on_poweroff", Served),
    ("on_reboot", Served),
    ("on_soft_reset", Served),
    ("on_watchdog", Served),
    ("oos", X86),
    ("opengl", DISPLAY),
    ("p9", NO_BACKEND),
    ("pae", X86),
    ("passthrough", Served),
    ("pci", NO_DEVICES),
    ("pci_msitranslate", Ignored("no device of the host can be given to a domain")),
    ("pci_permissive", Ignored("no device of the host can be given to a domain")),
    ("pci_power_mgmt", Ignored("no device of the host can be given to a domain")),
    ("pci_seize", Ignored("no device of the host can be given to a domain")),
    ("period", RTDS),
    ("pool", Served),
    ("pvcalls", NO_BACKEND),
    ("pvshim", X86),
    ("pvshim_cmdline", X86),
    ("pvshim_extra", X86),
    ("pvshim_path", X86),
    ("ramdisk", Served),
    ("rdm", X86),
    ("rdm_mem_boundary", X86),
    ("root", Served),
    ("rtc_timeoffset", X86),
    ("sdl", DISPLAY),
    ("seclabel", LABELS),
    ("serial", X86),
    ("shadow_memory", X86),
    ("slice", RTDS),
    ("smbios_firmware", X86),
    ("soundhw", DISPLAY),
    ("spice", DISPLAY),
    ("spice_clipboard_sharing", DISPLAY),
    ("spice_image_compression", DISPLAY),
    ("spice_streaming_video", DISPLAY),
    ("spiceagent_mouse", DISPLAY),
    ("spicedisable_ticketing", DISPLAY),
    ("spicehost", DISPLAY),
    ("spicepasswd", DISPLAY),
    ("spiceport", DISPLAY),
    ("spicetls_port", DISPLAY),
    ("spiceusbredirection", DISPLAY),
    ("spicevdagent", DISPLAY),
    ("stdvga", DISPLAY),
    ("stubdomain_cmdline", MODEL),
    ("stubdomain_kernel", MODEL),
    ("stubdomain_memory", MODEL),
    ("stubdomain_ramdisk", MODEL),
    ("tee", Served),
    ("timer_mode", X86),
    ("tsc_mode", X86),
    ("type", Served),
    ("usb", X86),
    ("usbctrl", NO_DEVICES),
    ("usbdev", NO_DEVICES),
    ("usbdevice", DISPLAY),
    ("usbversion", X86),
    ("uuid", Served),
    ("vcpus", Served),
    ("vdispl", DISPLAY),
    ("vendor_device", X86),
    ("vfb", DISPLAY),
    ("vga", DISPLAY),
    ("videoram", DISPLAY),
    ("vif", Served),
    ("vif2", Ignored("netchannel2 is no more")),
    ("viridian", X86),
    ("vkb", DISPLAY),
    ("vkb_device", DISPLAY),
    ("vmtrace_buf_kb", X86),
    ("vnc", DISPLAY),
    ("vncdisplay", DISPLAY),
    ("vnclisten", DISPLAY),
    ("vncpasswd", DISPLAY),
    ("vncunused", DISPLAY),
    ("vncviewer", DISPLAY),
    ("vnuma", Ignored("a domain sees one node")),
    ("vpmu", Ignored("a domain has no performance counters")),
    ("vpt_align", X86),
    ("vsnd", DISPLAY),
    ("vtpm", NO_BACKEND),
    ("vuart", Served),
    ("xauthority", DISPLAY),
    ("xen_platform_pci", X86),
    ("xend_suspend_evtchn_compat", Ignored("no domain can be suspended")),
];

/// What becomes of `key`; `None`: `xl.cfg` has no such key.
pub(super) fn treatment(key: &str) -> Option<Treatment> {
    let found = KEYS.binary_search_by_key(&key, |(key, _)| key).ok()?;
    Some(KEYS[found].1)
}

/// All keys.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(key, _)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_key_twice() {
        assert!(KEYS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(treatment("memory"), Some(Served));
        assert_eq!(treatment("memroy"), None);
    }
}
