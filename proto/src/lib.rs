//! Wattle's APIs: the bindings generated from the `.proto` files beside this crate, and the two
//! places where their bytes become values of `wattle-model`: [`entry`] and [`record`].

pub mod entry;
mod invalid;
pub mod reason;
pub mod record;
mod secrets;

pub use generated::wattle::{
    admin::v1 as admin, enroll::v1 as enroll, replica::v1 as replica, store::v1 as store,
    sync::v1 as sync,
};
pub use invalid::{Invalid, InvalidField};

/// The compiled `.proto` files, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::too_many_lines,
    clippy::doc_markdown,
    clippy::all,
    clippy::pedantic,
    rustdoc::all,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "gen/mod.rs"]
mod generated;
