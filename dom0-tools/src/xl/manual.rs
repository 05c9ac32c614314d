//! `xl completion` and the manual pages: made of the same definitions as the command line itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use super::command_line::Arguments;

/// Prints a shell's script for completion.
pub(super) fn completion(shell: clap_complete::Shell, out: &mut impl Write) -> Result<()> {
    // It is made in memory first: writing to a closed pipe would panic there.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "xl", &mut script);
    Ok(out.write_all(&script)?)
}

/// Writes `xl.1`, and `xl-COMMAND.1` for each command.
pub(super) fn write(directory: &Path) -> Result<()> {
    let failed = || format!("cannot write the manual pages to {}", directory.display());
    pages(directory).with_context(failed)
}

fn pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    // Gives every command its whole name.
    command.build();
    let page = |command: clap::Command, name: &str| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).title(name).source("Nacelle").render(&mut text)?;
        fs::write(directory.join(format!("{name}.1")), text)
    };
    page(command.clone(), "xl")?;
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("xl-{}", command.get_name());
        page(command.clone(), &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_every_command() {
        use clap_complete::Shell;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut out = Vec::new();
            completion(shell, &mut out).unwrap();
            let script = String::from_utf8(out).unwrap();
            for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let directory = std::env::temp_dir().join(format!("nacelle-man-{}", std::process::id()));
        write(&directory).unwrap();
        let main = fs::read_to_string(directory.join("xl.1")).unwrap();
        assert!(main.contains(".TH xl 1") && main.contains("xl\\-mem\\-set(1)"), "{main}");
        let page = fs::read_to_string(directory.join("xl-mem-set.1")).unwrap();
        assert!(page.contains("\\-\\-no\\-wait"), "{page}");
        assert!(!directory.join("xl-manual.1").exists());
        fs::remove_dir_all(&directory).unwrap();
    }
}
