//! Files as people write them, right and wrong, and as no one would.

mod garbage;
mod mistakes;
mod round_trip;
mod violations;

use super::{
    Declared,
    place::{File, Mistakes},
};
use crate::failure::Failure;

/// Reads one file named `f`.
fn read(text: &str) -> Result<Declared, Failure> {
    let (mut declared, mut mistakes) = (Declared::default(), Mistakes::default());
    declared.add(&File::new(0, "f"), text, &mut mistakes);
    mistakes.refuse("no:").map(|()| declared)
}

/// What is wrong with a file, a line each.
fn wrong(text: &str) -> Vec<String> {
    let said = read(text).err().map(|failure| failure.to_string()).unwrap_or_default();
    said.lines().skip(1).map(str::to_owned).collect()
}
