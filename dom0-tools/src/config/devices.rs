//! `disk` and `vif`: devices, each described by one string.
//!
//! The syntax is that of xl-disk-configuration(5) and xl-network-configuration(5).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::nearest::suggestion;

/// How a disk's contents lie in its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskFormat {
    /// As they are.
    Raw,
    /// QEMU's format.
    Qcow,
    /// QEMU's second format.
    Qcow2,
    /// Microsoft's format.
    Vhd,
    /// QEMU's enhanced disk.
    Qed,
    /// There is no medium.
    Empty,
}

impl DiskFormat {
    /// As `xl.cfg` and libxl's JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Qed => "qed",
            Self::Empty => "empty",
        }
    }

    fn new(name: &str) -> Option<Self> {
        match name {
            // No format given is the raw one.
            "raw" | "aio" | "" => Some(Self::Raw),
            "qcow" => Some(Self::Qcow),
            "qcow2" => Some(Self::Qcow2),
            "vhd" => Some(Self::Vhd),
            "qed" => Some(Self::Qed),
            "empty" => Some(Self::Empty),
            // The caller says so.
            _ => None,
        }
    }
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The block device or file; empty without a medium.
    pub target: String,
    /// How its contents lie there.
    pub format: DiskFormat,
    /// What the guest calls it, as `xvda`.
    pub vdev: String,
    /// Whether the guest may write.
    pub is_writable: bool,
    /// Whether it is a CD-ROM drive.
    pub is_cdrom: bool,
    /// The domain that serves it; `None`: dom0.
    pub backend: Option<String>,
    /// `phy`, `tap`, `qdisk` or `standalone`, if it is said.
    pub backend_type: Option<String>,
    /// The script that prepares the target.
    pub script: Option<String>,
    /// `discard` or `no-discard`.
    pub discard: Option<bool>,
    /// `direct-io-safe`.
    pub is_direct_io_safe: bool,
}

/// What is wrong with a device's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDevice(String);

impl fmt::Display for InvalidDevice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, InvalidDevice> {
    Err(InvalidDevice(message.into()))
}

const DISK_PARAMETERS: [&str; 18] = [
    "format",
    "vdev",
    "access",
    "devtype",
    "backend",
    "backendtype",
    "script",
    "target",
    "cdrom",
    "discard",
    "no-discard",
    "direct-io-safe",
    "specification",
    "trusted",
    "untrusted",
    "colo",
    "colo-host",
    "colo-port",
];

impl Disk {
    /// Reads `target, format, vdev, access` and `parameter=value` in any order; `target=` takes all that follows it.
    ///
    /// # Errors
    /// [`InvalidDevice`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidDevice> {
        let mut disk = Self {
            target: String::new(),
            format: DiskFormat::Raw,
            vdev: String::new(),
            is_writable: true,
            is_cdrom: false,
            backend: None,
            backend_type: None,
            script: None,
            discard: None,
            is_direct_io_safe: false,
        };
        let mut positional = 0;
        let mut is_target_known = false;
        let mut rest = text.trim();
        // The old way to name a format or a backend: a word before the target.
        for (prefix, format) in [
            ("phy:", None),
            ("file:", None),
            ("tap:", None),
            ("tap2:", None),
            ("aio:", None),
            ("raw:", None),
            ("qcow:", Some(DiskFormat::Qcow)),
            ("qcow2:", Some(DiskFormat::Qcow2)),
            ("vhd:", Some(DiskFormat::Vhd)),
        ] {
            if let Some(path) = rest.strip_prefix(prefix) {
                let (target, others) = path.split_once(',').unwrap_or((path, ""));
                disk.target = target.to_owned();
                disk.format = format.unwrap_or(DiskFormat::Raw);
                (rest, positional, is_target_known) = (others.trim_start(), 2, true);
                break;
            }
        }
        while !rest.is_empty() {
            if let Some(target) = rest.strip_prefix("target=") {
                disk.target = target.to_owned();
                is_target_known = true;
                break;
            }
            let (part, others) = rest.split_once(',').unwrap_or((rest, ""));
            rest = others.trim_start();
            disk.part(part.trim(), &mut positional)?;
            is_target_known |= positional > 0;
        }
        if disk.vdev.is_empty() {
            return invalid("a disk has a name in the guest, as in '/dev/vg/volume,raw,xvda,rw'");
        }
        if disk.is_cdrom {
            disk.is_writable = false;
            if disk.target.is_empty() {
                disk.format = DiskFormat::Empty;
            }
        }
        if !is_target_known || (disk.target.is_empty() && disk.format != DiskFormat::Empty) {
            return invalid(format!("disk '{}' has no target", disk.vdev));
        }
        Ok(disk)
    }

    fn part(&mut self, part: &str, positional: &mut u32) -> Result<(), InvalidDevice> {
        match part.split_once('=') {
            Some(("format", value)) => self.set_format(value)?,
            Some(("vdev", value)) => self.vdev = value.to_owned(),
            Some(("access", value)) => self.set_access(value)?,
            Some(("devtype", "cdrom")) => self.is_cdrom = true,
            Some(("devtype", "disk")) => self.is_cdrom = false,
            Some(("backend", value)) => self.backend = Some(value.to_owned()),
            Some(("backendtype", value @ ("phy" | "tap" | "qdisk" | "standalone"))) => {
                self.backend_type = Some(value.to_owned());
            }
            Some(("script", value)) => self.script = Some(value.to_owned()),
            Some(("specification", "xen")) => {}
            Some((known @ ("devtype" | "backendtype" | "specification"), value)) => {
                return invalid(format!("'{value}' is no {known} of a disk"));
            }
            Some((parameter, _)) => {
                let near = suggestion(parameter, DISK_PARAMETERS);
                return invalid(format!("a disk has no parameter '{parameter}'{near}"));
            }
            None => return self.word(part, positional),
        }
        Ok(())
    }

    fn word(&mut self, word: &str, positional: &mut u32) -> Result<(), InvalidDevice> {
        match word {
            "cdrom" => self.is_cdrom = true,
            "discard" => self.discard = Some(true),
            "no-discard" => self.discard = Some(false),
            "direct-io-safe" => self.is_direct_io_safe = true,
            // Both are about what the guest thinks of its backend.
            "trusted" | "untrusted" => {}
            _ => {
                match *positional {
                    0 => self.target = word.to_owned(),
                    1 => self.set_format(word)?,
                    2 => match word.rsplit_once(':') {
                        Some((vdev, "cdrom")) => (self.vdev, self.is_cdrom) = (vdev.to_owned(), true),
                        Some((vdev, "disk")) => self.vdev = vdev.to_owned(),
                        Some((_, other)) => return invalid(format!("'{other}' is no type of a disk")),
                        None => self.vdev = word.to_owned(),
                    },
                    3 => self.set_access(word)?,
                    _ => return invalid(format!("'{word}' is one part too many for a disk")),
                }
                *positional += 1;
            }
        }
        Ok(())
    }

    fn set_format(&mut self, name: &str) -> Result<(), InvalidDevice> {
        match DiskFormat::new(name) {
            Some(format) => self.format = format,
            None => {
                let near = suggestion(name, ["raw", "qcow", "qcow2", "vhd", "qed"]);
                return invalid(format!("'{name}' is no format of a disk{near}"));
            }
        }
        Ok(())
    }

    fn set_access(&mut self, access: &str) -> Result<(), InvalidDevice> {
        match access {
            "r" | "ro" => self.is_writable = false,
            "w" | "rw" => self.is_writable = true,
            other => return invalid(format!("'{other}' is no access to a disk: r, ro, w or rw")),
        }
        Ok(())
    }
}

/// A virtual network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vif {
    /// Its address; `None`: one is made up.
    pub mac: Option<[u8; 6]>,
    /// The bridge that the host's end joins.
    pub bridge: Option<String>,
    /// The name of the host's end.
    pub vifname: Option<String>,
    /// The script that sets up the host's end.
    pub script: Option<String>,
    /// The guest's address, for the script.
    pub ip: Option<String>,
    /// The domain that serves it; `None`: dom0.
    pub backend: Option<String>,
    /// The gateway's device, for the script.
    pub gatewaydev: Option<String>,
    /// The device's emulated model, which Arm has none of.
    pub model: Option<String>,
    /// Bytes in a packet.
    pub mtu: Option<u32>,
    /// Bytes a second at most.
    pub rate: Option<Rate>,
}

/// A limit of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes in an interval.
    pub bytes_per_interval: u64,
    /// The interval in microseconds.
    pub interval_usecs: u32,
}

const VIF_PARAMETERS: [&str; 13] = [
    "mac",
    "bridge",
    "vifname",
    "script",
    "ip",
    "backend",
    "gatewaydev",
    "model",
    "mtu",
    "type",
    "rate",
    "devid",
    "trusted",
];

impl Vif {
    /// Reads `parameter=value` with commas between them.
    ///
    /// # Errors
    /// [`InvalidDevice`] says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidDevice> {
        let mut vif = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((parameter, value)) = part.split_once('=') else {
                return invalid(format!("'{part}' in a vif should be parameter=value"));
            };
            let text = Some(value.to_owned());
            match parameter {
                "mac" => vif.mac = Some(mac(value)?),
                "bridge" => vif.bridge = text,
                "vifname" => vif.vifname = text,
                "script" => vif.script = text,
                "ip" => vif.ip = text,
                "backend" => vif.backend = text,
                "gatewaydev" => vif.gatewaydev = text,
                "model" => vif.model = text,
                "type" => match value {
                    "vif" | "netif" => {}
                    other => return invalid(format!("'{other}' is no type of a vif that Arm has: vif")),
                },
                "rate" => vif.rate = Some(rate(value)?),
                "mtu" => match value.parse() {
                    Ok(mtu) => vif.mtu = Some(mtu),
                    Err(_) => return invalid(format!("'{value}' is no mtu, as 1500")),
                },
                // The first is counted from 0 in the order of the list; the second is what the guest thinks of its backend.
                "devid" | "trusted" => {}
                other => {
                    return invalid(format!(
                        "a vif has no parameter '{other}'{}",
                        suggestion(other, VIF_PARAMETERS)
                    ));
                }
            }
        }
        Ok(vif)
    }

    /// Its address as text.
    pub fn mac_text(&self) -> Option<String> {
        let bytes = self.mac?.map(|byte| format!("{byte:02x}"));
        Some(bytes.join(":"))
    }
}

fn mac(text: &str) -> Result<[u8; 6], InvalidDevice> {
    let wrong = || InvalidDevice(format!("'{text}' is no MAC address, as 00:16:3e:12:34:56"));
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| matches!(part.len(), 1 | 2) && !part.starts_with('+'));
        *byte = part.and_then(|part| u8::from_str_radix(part, 16).ok()).ok_or_else(wrong)?;
    }
    match parts.next() {
        None if bytes[0] & 1 == 0 => Ok(bytes),
        None => invalid(format!("'{text}' is a multicast address")),
        Some(_) => Err(wrong()),
    }
}

/// `10Mb/s`, `250KB/s`, `1MB/s@20ms`.
fn rate(text: &str) -> Result<Rate, InvalidDevice> {
    let wrong = || InvalidDevice(format!("'{text}' is no rate, as 10Mb/s or 1MB/s@20ms"));
    let (amount, interval) = match text.split_once('@') {
        Some((amount, interval)) => (amount, Some(interval)),
        None => (text, None),
    };
    let amount = amount.strip_suffix("/s").ok_or_else(wrong)?;
    let digits = amount.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: u64 = digits.parse().map_err(|_| wrong())?;
    let bits = match &amount[digits.len()..] {
        "Gb" => value.checked_mul(1_000_000_000),
        "Mb" => value.checked_mul(1_000_000),
        "Kb" => value.checked_mul(1000),
        "b" => Some(value),
        "GB" => value.checked_mul(8_000_000_000),
        "MB" => value.checked_mul(8_000_000),
        "KB" => value.checked_mul(8000),
        "B" => value.checked_mul(8),
        // Said below.
        _ => None,
    };
    let per_second = bits.ok_or_else(wrong)? / 8;
    let usecs = match interval {
        None => Some(50_000),
        Some(interval) => {
            let digits = interval.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let value: u32 = digits.parse().map_err(|_| wrong())?;
            match &interval[digits.len()..] {
                "s" => value.checked_mul(1_000_000),
                "ms" => value.checked_mul(1000),
                "us" => Some(value),
                // Said below.
                _ => None,
            }
        }
    };
    let interval_usecs = usecs.filter(|usecs| *usecs > 0).ok_or_else(wrong)?;
    let bytes_per_interval = u128::from(per_second) * u128::from(interval_usecs) / 1_000_000;
    Ok(Rate { bytes_per_interval: u64::try_from(bytes_per_interval).map_err(|_| wrong())?, interval_usecs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> (String, DiskFormat, String, bool) {
        let disk = Disk::parse(text).unwrap();
        (disk.target, disk.format, disk.vdev, disk.is_writable)
    }

    #[test]
    fn disks_are_read_as_the_manual_says() {
        let volume = ("/dev/vg/volume".to_owned(), DiskFormat::Raw, "xvda".to_owned(), true);
        // The examples of xl-disk-configuration(5) that mean the same.
        for text in [
            "/dev/vg/volume,raw,xvda,rw",
            "format=raw, vdev=xvda, access=rw, target=/dev/vg/volume",
            "raw:/dev/vg/volume,xvda,w",
            "/dev/vg/volume,,xvda",
            "phy:/dev/vg/volume,xvda,w",
            "vdev=xvda,/dev/vg/volume",
        ] {
            assert_eq!(disk(text), volume, "{text}");
        }
        assert_eq!(disk("/a,qcow2,xvdb,ro"), ("/a".into(), DiskFormat::Qcow2, "xvdb".into(), false));
        assert_eq!(disk("vdev=xvda,target=/a,b"), ("/a,b".into(), DiskFormat::Raw, "xvda".into(), true));
        let cdrom = Disk::parse(",,hdc:cdrom,r").unwrap();
        assert_eq!((cdrom.is_cdrom, cdrom.format), (true, DiskFormat::Empty));
        assert!(Disk::parse("vdev=hdc,cdrom,target=/a.iso").unwrap().is_cdrom);
    }

    #[test]
    fn wrong_disks_name_the_part() {
        let wrong = |text: &str| Disk::parse(text).unwrap_err().0;
        assert_eq!(wrong("/a,qcow3,xvda"), "'qcow3' is no format of a disk; did you mean 'qcow'?");
        assert_eq!(wrong("/a,raw,xvda,rx"), "'rx' is no access to a disk: r, ro, w or rw");
        assert_eq!(wrong("/a,raw,xvda,rw,more"), "'more' is one part too many for a disk");
        assert_eq!(wrong("/a,raw,xvda,acess=rw"), "a disk has no parameter 'acess'; did you mean 'access'?");
        assert_eq!(wrong("vdev=xvda"), "disk 'xvda' has no target");
        assert!(wrong("/a").contains("has a name in the guest"));
        assert!(wrong("").contains("has a name in the guest"));
    }

    #[test]
    fn vifs_are_read() {
        let vif = Vif::parse("mac=00:16:3E:1:02:a3, bridge=xenbr0,rate=10Mb/s").unwrap();
        assert_eq!(vif.mac_text().as_deref(), Some("00:16:3e:01:02:a3"));
        assert_eq!(vif.bridge.as_deref(), Some("xenbr0"));
        assert_eq!(vif.rate, Some(Rate { bytes_per_interval: 62_500, interval_usecs: 50_000 }));
        assert_eq!(Vif::parse("").unwrap(), Vif::default());
        let wrong = |text: &str| Vif::parse(text).unwrap_err().0;
        assert_eq!(wrong("brige=x"), "a vif has no parameter 'brige'; did you mean 'bridge'?");
        assert_eq!(wrong("mac=01:00:00:00:00:00"), "'01:00:00:00:00:00' is a multicast address");
        assert!(wrong("mac=0:1").contains("no MAC address"));
        assert!(wrong("type=ioemu").contains("no type of a vif"));
        assert!(wrong("bridge").contains("parameter=value"));
        for bad in ["10", "10Mb", "xMb/s", "10Mb/s@", "10Mb/s@0s", "99999999999999GB/s"] {
            assert!(wrong(&format!("rate={bad}")).contains("no rate"), "{bad}");
        }
    }
}
