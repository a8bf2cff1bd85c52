//! Real devices in network namespaces of their own, driven through the `Kernel` trait: what the
//! userspace and the kernel's data plane must both do.

pub(crate) mod netns;
pub(crate) mod node;
#[allow(dead_code, reason = "used by the kernel's tests alone")]
pub(crate) mod random;
pub(crate) mod scenes;
