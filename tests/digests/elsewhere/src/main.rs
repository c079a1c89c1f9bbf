//! Prints the digests of `work`, a name and a digest a line. Takes the name of an empty folder.

#[path = "../../work.rs"]
mod work;

fn main() {
    let space = std::env::args_os().nth(1).expect("an empty folder");
    work::all(space.as_ref(), &mut |name, digest| println!("{digest} {name}"));
}
