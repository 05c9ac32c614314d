//! A configuration from the command line: a file, and settings that come after it.

use anyhow::Result;

use super::Status;
use super::command_line::Configuration;
use crate::config::{self, Diagnostic, DomainConfig, Severity, Source};

/// xl's status where there is no file at all.
const NO_FILE: u8 = 6;
/// xl's status where the file cannot be read.
const UNREADABLE: u8 = 3;

/// What was given, read but not understood yet.
pub(super) struct Given {
    /// The file's name.
    pub(super) file: String,
    text: String,
    settings: Vec<String>,
}

impl Given {
    /// Reads the file.
    ///
    /// # Errors
    /// There is no file, more than one, or it cannot be read.
    pub(super) fn read(given: &Configuration) -> Result<Self> {
        let (settings, files): (Vec<&String>, Vec<&String>) =
            given.parts.iter().partition(|part| part.contains('='));
        let mut names =
            given.file.iter().map(|path| path.display().to_string()).chain(files.into_iter().cloned());
        let Some(file) = names.next() else {
            return Err(Status(NO_FILE, "Config file not specified".to_owned()).into());
        };
        if let Some(other) = names.next() {
            let message = format!("one configuration file is enough: '{file}' or '{other}'?");
            return Err(Status(super::USAGE, message).into());
        }
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Status(UNREADABLE, format!("Failed to read config file: {file}: {error}")))?;
        Ok(Self { file, text, settings: settings.into_iter().cloned().collect() })
    }

    /// What it says, on a host of so many KiB; warnings go to the standard error output.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn understand(&self, host_kib: Option<u64>) -> Result<DomainConfig> {
        let sources: Vec<Source<'_>> = std::iter::once(Source::file(&self.file, &self.text))
            .chain(self.settings.iter().map(|setting| Source::argument(setting)))
            .collect();
        let (config, warnings) = config::read_on(&sources, host_kib)?;
        warn(&warnings);
        Ok(config)
    }

    /// One text that says the same, as xl keeps it.
    pub(super) fn text(&self) -> String {
        let settings: String =
            self.settings.iter().map(|setting| format!("{}\n", config::as_line(setting))).collect();
        format!("{}\n{settings}\n", self.text)
    }
}

fn warn(warnings: &[Diagnostic]) {
    for warning in warnings.iter().filter(|warning| warning.severity == Severity::Warning) {
        eprintln!("{warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(file: Option<&str>, parts: &[&str]) -> Configuration {
        Configuration { file: file.map(Into::into), parts: parts.iter().map(ToString::to_string).collect() }
    }

    fn status(given: &Configuration) -> u8 {
        let error = Given::read(given).err().unwrap();
        error.downcast_ref::<Status>().unwrap().0
    }

    #[test]
    fn a_file_and_what_comes_after_it() {
        let path = std::env::temp_dir().join(format!("nacelle-given-{}.cfg", std::process::id()));
        std::fs::write(&path, "name='a'\nkernel='/k'\nmemory=64").unwrap();
        let name = path.to_str().unwrap();
        for given in
            [given(None, &["memory=128", name, "name=b c"]), given(Some(name), &["memory=128", "name=b c"])]
        {
            let read = Given::read(&given).unwrap();
            let config = read.understand(None).unwrap();
            assert_eq!((config.name.as_str(), config.memory_kib), ("b c", 128 << 10));
            // Debian's parser reads the same out of it.
            assert_eq!(read.text(), "name='a'\nkernel='/k'\nmemory=64\nmemory=128\nname=\"b c\"\n\n");
            assert_eq!(config::parse(&read.text(), "f").unwrap(), config);
        }
        assert_eq!(status(&given(Some(name), &["other"])), 2);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(status(&given(None, &[name])), 3);
        assert_eq!(status(&given(None, &["memory=1"])), 6);
    }
}
