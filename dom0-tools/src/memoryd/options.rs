//! `xenmemd`'s command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

use crate::daemon;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "xenmemd",
    bin_name = "xenmemd",
    version,
    disable_version_flag = true,
    about = "Gives each domain the memory that it needs, for those whose configuration has memory_policy=1",
    mut_arg("pid_file", |arg| arg.default_value("/run/xen/xenmemd.pid"))
)]
pub struct Options {
    /// Those that all daemons have.
    #[command(flatten)]
    pub common: daemon::Common,
    /// Where `xl` finds it
    #[arg(long, value_name = "PATH", default_value = super::protocol::SOCKET)]
    pub socket: PathBuf,
    /// MiB that stay free, for the hypervisor and the tools; by default a 64th of the host's memory, 16 to 256
    #[arg(long, value_name = "MIB")]
    pub reserve: Option<u64>,
    /// Serve Prometheus there: a path for a Unix socket, or a port, or 127.0.0.1:PORT; other hosts are not served
    #[arg(long, value_name = "PATH|PORT")]
    pub metrics: Option<Metrics>,
    /// Record everything into this file, for `xl memory plot`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

impl daemon::Options for Options {
    fn common(&self) -> &daemon::Common {
        &self.common
    }
}

/// Where Prometheus asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// At a Unix socket.
    Path(PathBuf),
    /// At an address of this host's loopback.
    Address(SocketAddr),
}

impl FromStr for Metrics {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::Address(SocketAddr::from(([127, 0, 0, 1], port))));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Address(address)),
            Ok(_) => Err("only this host is served: say a port, 127.0.0.1:PORT or [::1]:PORT".to_owned()),
            Err(_) if text.starts_with('/') => Ok(Self::Path(text.into())),
            Err(_) => Err("it is a path from / on, a port, or 127.0.0.1:PORT".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_host_is_served() {
        let address = |text: &str| match text.parse() {
            Ok(Metrics::Address(address)) => address.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!((address("9100").as_str(), address("[::1]:1").as_str()), ("127.0.0.1:9100", "[::1]:1"));
        assert_eq!("/run/m".parse(), Ok(Metrics::Path("/run/m".into())));
        for bad in ["0.0.0.0:9100", "192.168.1.1:80", "here", "", "70000"] {
            assert!(bad.parse::<Metrics>().is_err(), "{bad}");
        }
    }
}
