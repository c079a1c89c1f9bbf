//! What slmops and its helper say to each other, over the socket that is the helper's standard input. Orders go in, replies come out, and when slmops is
//! gone the socket ends: that is how the sandbox learns of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Ended, Job};

/// What each of the two helper processes reads first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub job: Job,
    /// This very program.
    pub helper: PathBuf,
    /// An empty folder of the machine on which the tree is put together.
    pub scratch: PathBuf,
    /// `cgroup.procs` files of the groups that limit the sandbox.
    pub groups: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Process 1 runs; its number on the machine.
    Started {
        init: u32,
        is_grouped: bool,
    },
    /// The sandbox is complete, but for these.
    Ready {
        gaps: Vec<Gap>,
    },
    Outcome(Outcome),
}

/// How it came out.
#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    Ended(Ended),
    /// The sandbox could not be made.
    Unavailable {
        doing: String,
        error: String,
    },
    /// The sandbox stood, but the program could not be started.
    NotStarted {
        error: String,
        errno: Option<i32>,
    },
}

/// Something that this machine does not give. None of these is needed for a promise: they are second walls, or change what a command can see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gap {
    Landlock,
    /// The hard limit of this process is lower than what every sandbox has.
    LowLimit {
        name: String,
        have: u64,
        /// None: unlimited.
        want: Option<u64>,
    },
    /// No cgroup for memory, processes, or both.
    NoGroup {
        what: String,
    },
    /// Not even a way to look.
    NoLimit {
        what: String,
    },
}

impl Gap {
    /// For the warning at the start.
    pub fn text(&self) -> String {
        match self {
            Gap::Landlock => "no Landlock (Linux 5.19 with `landlock` among its security modules), a second wall around files".to_string(),
            Gap::LowLimit { name, have, want: Some(want) } => format!("the hard limit on {name} is {have}, not the sandbox's {want}"),
            Gap::LowLimit { name, have, want: None } => format!("the hard limit on {name} is {have}; in a sandbox it is unlimited"),
            Gap::NoGroup { what } => {
                format!("no cgroup that slmops may use for {what}, so that its limit is checked every few milliseconds only")
            }
            Gap::NoLimit { what } => format!("no way to limit {what}: neither cgroups nor `/proc` show the command's processes"),
        }
    }
}

const MESSAGE_MAX_BYTES: u32 = 64 << 20;

/// A message behind its length. Nothing is read beyond it: what follows is for another process.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<T> {
    let mut length = [0u8; 4];
    read_exact(socket.as_fd(), &mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_MAX_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    read_exact(socket.as_fd(), &mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

pub fn send<T: Serialize>(socket: impl AsFd, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= MESSAGE_MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::other("a message that is too long"))?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(body);
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::write(socket.as_fd(), rest))?;
        rest = rest.get(n..).unwrap_or_default();
    }
    Ok(())
}

fn read_exact(socket: BorrowedFd, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut *rest))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => filled += n,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_are_read_one_by_one_and_not_beyond() {
        let (one, other) = UnixStream::pair().unwrap();
        send(&one, &vec![1, 2, 3]).unwrap();
        send(&one, &"next".to_string()).unwrap();
        assert_eq!(receive::<Vec<u8>>(&other).unwrap(), [1, 2, 3]);
        assert_eq!(receive::<String>(&other).unwrap(), "next");
        drop(one);
        assert_eq!(receive::<String>(&other).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_that_cannot_be_true_is_refused() {
        let (one, other) = UnixStream::pair().unwrap();
        rustix::io::write(&one, &u32::MAX.to_be_bytes()).unwrap();
        assert!(receive::<String>(&other).unwrap_err().to_string().contains("4294967295 bytes"));
    }
}
