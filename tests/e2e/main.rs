//! The program as a person meets it: run in a folder of its own, with a cleared environment.

mod answers;
mod damage;
mod families;
mod init;
mod mistakes;
mod peers;
mod prune;
mod rebuild;
mod same_bits;
mod smollm2;
mod space;
mod terminal;
mod torch;
