//! The commands and their options.

use clap::{Args, Parser, Subcommand};

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "xenstore", bin_name = "xenstore", version, about = "Reads and changes XenStore")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

/// One command. `-s`, the socket, is what is always used.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print values
    Read {
        /// With the path in front
        #[arg(short, long)]
        prefix: bool,
        #[arg(short, hide = true)]
        socket: bool,
        /// As they are, without a newline
        #[arg(short = 'R', long)]
        raw: bool,
        /// The nodes
        #[arg(required = true, value_name = "KEY")]
        paths: Vec<String>,
    },
    /// Set values
    Write {
        #[arg(short, hide = true)]
        socket: bool,
        /// As they are, without \n, \x7f and the like
        #[arg(short = 'R', long)]
        raw: bool,
        /// Nodes and their values
        #[arg(required = true, value_names = ["KEY", "VALUE"], num_args = 2.., allow_hyphen_values = true, value_parser = clap::value_parser!(String))]
        words: Vec<String>,
    },
    /// Remove nodes
    Rm {
        #[arg(short, hide = true)]
        socket: bool,
        /// Also those above that are empty then
        #[arg(short, long)]
        tidy: bool,
        /// The nodes
        #[arg(required = true, value_name = "KEY")]
        paths: Vec<String>,
    },
    /// Whether nodes exist: by the exit status
    Exists {
        #[arg(short, hide = true)]
        socket: bool,
        /// The nodes
        #[arg(required = true, value_name = "KEY")]
        paths: Vec<String>,
    },
    /// Print the names of children
    List {
        /// With the path in front
        #[arg(short, long)]
        prefix: bool,
        #[arg(short, hide = true)]
        socket: bool,
        /// The nodes
        #[arg(required = true, value_name = "KEY")]
        paths: Vec<String>,
    },
    /// Print all nodes below some
    Ls(Ls),
    /// Set permissions
    Chmod {
        /// Also of the nodes above
        #[arg(short, long)]
        upto: bool,
        /// Also of the nodes below
        #[arg(short, long)]
        recurse: bool,
        #[arg(short, hide = true)]
        socket: bool,
        /// The node
        #[arg(value_name = "KEY")]
        path: String,
        /// The owner's entry first: r, w, b or n, and a domain
        #[arg(required = true, value_name = "MODE")]
        permissions: Vec<String>,
    },
    /// Print what changes
    Watch {
        /// That many times
        #[arg(short, long, value_name = "NR", allow_negative_numbers = true)]
        number: Option<i64>,
        #[arg(short, hide = true)]
        socket: bool,
        /// The nodes
        #[arg(required = true, value_name = "KEY")]
        paths: Vec<String>,
    },
    /// Talk to the daemon
    Control {
        /// A command and its arguments; without any, a list of them
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<String>,
    },
}

/// `ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// Whole paths
    #[arg(short, long)]
    pub flat: bool,
    /// With permissions
    #[arg(short = 'p', long = "prefix")]
    pub permissions: bool,
    #[arg(short, hide = true)]
    socket: bool,
    /// The nodes
    #[arg(default_value = "/", value_name = "PATH")]
    pub paths: Vec<String>,
}
