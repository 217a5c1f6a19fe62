//! A device by its name on the command line or in a recipe: `auto`, `cpu`, `cuda:N`, `metal`.

use std::fmt;
use std::str::FromStr;

use candle_core::{Device, Result, utils};

/// Which device to compute on; parsing touches no device, [`Choice::open`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first GPU this build can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl Choice {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build or this machine has no such device; `auto` falls back to the CPU only if the
    /// build has no GPU support, so that a broken driver is not mistaken for a slow model.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Auto if utils::cuda_is_available() => Device::new_cuda(0),
            Self::Auto if utils::metal_is_available() => Device::new_metal(0),
            Self::Auto | Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(_) if !utils::cuda_is_available() => missing("CUDA", "cuda"),
            Self::Metal if !utils::metal_is_available() => missing("Metal", "metal"),
            Self::Cuda(number) => Device::new_cuda(number),
            Self::Metal => Device::new_metal(0),
        }
    }
}

fn missing(what: &str, feature: &str) -> Result<Device> {
    candle_core::bail!("this build has no {what}: build with `--features {feature}`, or take `--device cpu`")
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let unknown = || format!("no device is called `{name}`; expected auto, cpu, cuda, cuda:N or metal");
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => {
                let number = name.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_refused() {
        for name in ["auto", "cpu", "cuda:0", "cuda:3", "metal"] {
            assert_eq!(name.parse::<Choice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            let message = name.parse::<Choice>().unwrap_err();
            assert!(message.contains(&format!("`{name}`")) && message.contains("cuda:N"), "{message}");
        }
        assert!(matches!(Choice::Cpu.open(), Ok(Device::Cpu)));
    }
}
