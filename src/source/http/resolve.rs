//! Names of hosts to addresses, within a time. The system's own look-up cannot be stopped, so it runs in a thread that nobody waits for afterwards; where
//! the system gives no thread, it is waited for.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// As many as ureq tries.
const MAX_ADDRESSES: usize = 16;

#[derive(Debug)]
pub struct Names;

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(Error::HostNotFound) };
        let name = DefaultResolver::host_and_port(scheme, authority).ok_or(Error::HostNotFound)?;
        let found = match name.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => look_up(name, timeout)?,
        };
        let mut addresses = self.empty();
        found.into_iter().take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

fn look_up(name: String, timeout: NextTimeout) -> Result<Vec<SocketAddr>, Error> {
    let now = |name: &str| name.to_socket_addrs().map(Iterator::collect).map_err(Error::Io);
    let (sender, receiver) = mpsc::sync_channel(1);
    let asked = name.clone();
    let started = std::thread::Builder::new().name("look-up".to_string()).spawn(move || drop(sender.send(now(&asked))));
    if started.is_err() {
        return now(&name);
    }
    match receiver.recv_timeout(*timeout.after) {
        Ok(found) => found,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Error::Timeout(timeout.reason)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(Error::HostNotFound),
    }
}
