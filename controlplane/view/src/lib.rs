//! Hop 2: the view. Which entries and removals bring an agent from one revision to the next.
//!
//! Pure code: it is fed by list-then-watch, keeps the current keys in memory, and answers
//! [`Index::pull`]. It knows neither tokio, tonic, the store nor the bytes' meaning.
//!
//! The flow: a [`Transaction`] changes records (`network`, `node`); what a node matches (`selectors`)
//! makes its class (`class`), its class and the policies make its sight (`shape`), and a walk over
//! the nodes in the order of their last change compares sight then with sight now (`walk`). What a
//! change would mean is asked of a copy (`preview`).

mod candidates;
mod change;
mod class;
mod concern;
mod cost;
mod index;
mod network;
mod node;
mod orders;
mod preview;
mod pull;
mod reach;
mod reclass;
mod selectors;
mod shape;
mod sight;
mod sums;
mod touched;
mod walk;

pub use change::{Change, Transaction};
pub use index::{Index, Life, NetworkRef, NodeRef};
pub use preview::{Effect, NodeEffect, Proposal, Shape, Sights};
pub use pull::{Commit, Page, Position, PullKey};
