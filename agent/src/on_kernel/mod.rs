//! Whole agents, as processes, on the kernel's WireGuard and before a scripted control plane. They
//! need such a kernel, so `cargo test` ignores them: integration/kernel-tests.sh and
//! integration/kernel-bench.sh run them in a machine that has one.
#![expect(clippy::print_stdout, reason = "they say what they measured")]

mod again;
mod bench;
mod changes;
mod machine;
mod netns;
