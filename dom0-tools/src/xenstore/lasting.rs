//! A connection to XenStore for a daemon that outlives XenStore's: given up when it breaks, and made anew after a while.

use std::time::{Duration, Instant};

use super::{Client, Error, Result};
use crate::daemon;

/// How long until XenStore is tried again after it went away.
const RETRY: Duration = Duration::from_secs(1);

/// The connection, or none for now.
#[derive(Debug)]
pub struct Lasting {
    program: &'static str,
    is_verbose: bool,
    client: Option<Client>,
    retries_at: Instant,
}

impl Lasting {
    /// None yet. `program` is whose reports it makes; with `is_verbose` also of what XenStore refuses.
    pub fn new(program: &'static str, is_verbose: bool) -> Self {
        Self { program, is_verbose, client: None, retries_at: Instant::now() }
    }

    /// The connection, if there is one.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Makes a connection; `set_up` asks it for what it is to tell of.
    ///
    /// # Errors
    /// [`Error`]: there is none, until the next try.
    pub fn connect(&mut self, set_up: impl FnOnce(&Client) -> Result<()>) -> Result<()> {
        self.retries_at = Instant::now() + RETRY;
        let client = Client::connect()?;
        set_up(&client)?;
        self.client = Some(client);
        Ok(())
    }

    /// Asks XenStore; if the connection breaks it is given up.
    pub fn ask<T>(&mut self, question: impl FnOnce(&Client) -> Result<T>) -> Option<T> {
        match question(self.client.as_ref()?) {
            Ok(answer) => return Some(answer),
            Err(error @ Error::Refused { .. }) if self.is_verbose => {
                daemon::report(self.program, &error.to_string());
            }
            Err(Error::Refused { .. }) => {}
            Err(error) => {
                daemon::report(self.program, &format!("{error}; trying again"));
                self.client = None;
                self.retries_at = Instant::now() + RETRY;
            }
        }
        None
    }

    /// How long until another connection is to be tried; `None` while there is one.
    pub fn retries_in(&self) -> Option<Duration> {
        let left = || self.retries_at.saturating_duration_since(Instant::now());
        self.client.is_none().then(left)
    }

    /// Whether it is to be tried now.
    pub fn is_due(&self) -> bool {
        self.retries_in().is_some_and(|left| left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use pv_abi::Errno;

    use super::*;
    use crate::xenstore::Nodes;

    #[test]
    fn what_breaks_is_given_up_and_what_is_refused_is_not() {
        let path = std::env::temp_dir().join(format!("nacelle-lasting-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let mut store = Lasting::new("test", false);
        assert!(store.is_due() && store.ask(|_| Ok(())).is_none());
        store.client = Some(Client::connect_to(&path).unwrap());
        let refused = || Error::Refused { what: "read", path: "/a".to_owned(), errno: Errno::ENOENT };
        assert!(store.ask(|_| Err::<(), _>(refused())).is_none());
        assert_eq!((store.ask(|_| Ok(5)), store.retries_in()), (Some(5), None));
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        assert!(store.ask(|client| client.read("/a")).is_none());
        assert!(store.client().is_none() && store.retries_in().is_some_and(|left| left <= RETRY));
        assert!(store.ask(|_| Ok(())).is_none());
    }
}
