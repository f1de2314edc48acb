//! A Wintun adapter, through the crate `compat-win`.

use std::io;

use super::{InsideConfig, InsideDevice, InsideError, NAME};

/// The driver's library, looked for beside the program and nowhere else.
const LIBRARY: &str = "wintun.dll";

pub(super) fn open(config: &InsideConfig) -> Result<InsideDevice, InsideError> {
    let name = config.name_hint.clone().unwrap_or_else(|| NAME.to_owned());
    let program = std::env::current_exe().map_err(|error| InsideError::system("find the program's folder", error))?;
    let library = program.with_file_name(LIBRARY);
    if !library.is_file() {
        return Err(InsideError::NoDriver(library));
    }
    let ula = config.usable_ula();
    let wanted = compat_win::InsideConfig {
        name: name.clone(),
        library: library.clone(),
        ipv4: Some((config.ipv4, config.prefix)),
        ipv6: ula,
        mtu: u16::try_from(config.mtu).expect("the configuration was checked"),
    };
    match compat_win::Inside::open(&wanted) {
        Ok(device) => Ok(InsideDevice {
            device,
            name,
            ula: ula.map(|(address, _)| address),
            offloads: mesh_core::seam::Offloads::NONE,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(InsideError::NoDriver(library)),
        Err(error) => Err(InsideError::system(format!("make the interface {name}"), error)),
    }
}
