//! The program as a person meets it: run in a folder of its own, with a cleared environment.

#![expect(clippy::disallowed_methods, reason = "a test knows what it has made")]

mod answers;
mod damage;
mod deliver;
mod families;
mod init;
mod mistakes;
mod outputs;
mod peers;
mod prune;
mod rebuild;
mod same_bits;
mod smollm2;
mod space;
mod terminal;
mod torch;
