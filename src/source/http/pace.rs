//! How long a transfer may take: for its whole length at least the lowest speed, after a time of grace. A connection that is slower ends, whatever
//! the server sends that is no content: interim answers, headers, chunks' lengths, trailers.
//!
//! A [`Meter`] belongs to a client, which has one request at a time under way; every connection of the client asks it how long it may still wait.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport, time};
use ureq::{Error, Timeout};

use crate::source::limits::Limits;

/// What a transfer that was too slow ends with: nothing else is told by this time-out here.
pub const TOO_SLOW: Timeout = Timeout::RecvBody;

/// The time that was waited and the bytes that came of it.
pub struct Meter {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waited: Duration,
    content_bytes: u64,
    longest: Option<Duration>,
}

impl Meter {
    pub fn new(limits: &Limits) -> Meter {
        Meter { limits: limits.clone(), state: Mutex::default() }
    }

    /// A request or a body begins. `longest` is for one whose size is not known.
    pub fn begin(&self, longest: Option<Duration>) {
        *self.state() = State { longest, ..State::default() };
    }

    /// Content has arrived, for which there is more time now.
    pub fn arrived(&self, bytes: usize) {
        let mut state = self.state();
        state.content_bytes = state.content_bytes.saturating_add(bytes as u64);
    }

    fn waited(&self, time: Duration) {
        let mut state = self.state();
        state.waited = state.waited.saturating_add(time);
    }

    /// How long it may still be waited; none if that is over.
    fn left(&self) -> Option<Duration> {
        let state = self.state();
        let allowed = self.limits.time_for(state.content_bytes);
        let allowed = state.longest.map_or(allowed, |longest| longest.min(allowed));
        allowed.checked_sub(state.waited).filter(|left| !left.is_zero())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

/// The last link of a chain of connectors.
#[derive(Debug)]
pub struct PaceConnector(pub Arc<Meter>);

impl<In: Transport> Connector<In> for PaceConnector {
    type Out = Paced<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Paced<In>>, Error> {
        Ok(chained.map(|inner| Paced { inner, meter: self.0.clone() }))
    }
}

/// A connection that waits no longer than its client's meter allows.
#[derive(Debug)]
pub struct Paced<T> {
    inner: T,
    meter: Arc<Meter>,
}

impl<T: Transport> Transport for Paced<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        let left = time::Duration::Exact(self.meter.left().ok_or(Error::Timeout(TOO_SLOW))?);
        if left < timeout.after {
            (timeout.after, timeout.reason) = (left, TOO_SLOW);
        }
        let start = Instant::now();
        let result = self.inner.await_input(timeout);
        self.meter.waited(start.elapsed());
        result
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_earns_time_and_nothing_else_does() {
        let limits = Limits { grace: Duration::from_secs(2), slowest_bytes_per_s: 100, ..Limits::default() };
        let meter = Meter::new(&limits);
        meter.waited(Duration::from_secs(1));
        assert_eq!(meter.left(), Some(Duration::from_secs(1)));
        meter.waited(Duration::from_secs(1));
        assert_eq!(meter.left(), None);
        meter.arrived(300);
        assert_eq!(meter.left(), Some(Duration::from_secs(3)));
        meter.waited(Duration::from_secs(9));
        assert_eq!(meter.left(), None);
        meter.begin(Some(Duration::from_secs(5)));
        assert_eq!(meter.left(), Some(Duration::from_secs(2)));
        meter.arrived(1_000_000);
        assert_eq!(meter.left(), Some(Duration::from_secs(5)));
    }
}
