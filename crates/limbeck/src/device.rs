//! Where tensors are computed, chosen by name at run time.

use burn::tensor::Device;

use crate::error::{Error, Result};

/// Names of the devices that this build offers; the first is the default.
pub const DEVICES: &[&str] = &[
    "flex",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "wgpu")]
    "wgpu",
];

/// The device of this name: `flex` (CPU), and `cuda` or `wgpu` in builds with that feature.
///
/// # Errors
/// [`Error::Config`] names the devices that this build offers.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "flex" | "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(0)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        _ => Err(Error::config("device", name, format!("one of: {}", DEVICES.join(", ")))),
    }
}
