//! Volumes that can lose power: a file system on a loop device whose backing file lies on an XFS of its own.
//!
//! A cut is one `FICLONE` of the backing file. It takes the inode's lock, so the clone is what the block layer had at one
//! instant, while processes and the kernel's own write-back go on: nothing is flushed, nothing waits. The clone then
//! takes the place of the volume, as a machine finds its disk after the power is back.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::FaultError;
use crate::leftovers::Leftovers;

/// Room for all volumes and their clones; sparse.
const OUTER_BYTES: u64 = 64 << 30;

/// Room of one volume; sparse.
const VOLUME_BYTES: u64 = 4 << 30;

/// The file system of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileSystem {
    /// With its defaults: ordered data, barriers.
    Ext4,
    /// With its defaults.
    Xfs,
}

impl FileSystem {
    pub(crate) const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn make(self, device: &Path) -> Result<(), FaultError> {
        match self {
            // The volume is new: nothing to ask about.
            Self::Ext4 => command("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), device.as_ref()]).map(drop),
            Self::Xfs => command("mkfs.xfs", &["-q".as_ref(), "-f".as_ref(), device.as_ref()]).map(drop),
        }
    }
}

/// A file system that can clone files, for the backing files.
pub(crate) struct Ground {
    folder: PathBuf,
}

impl Ground {
    /// Makes and mounts it in `work`.
    pub(crate) fn make(work: &Path, leftovers: &mut Leftovers) -> Result<Self, FaultError> {
        let (image, folder) = (work.join("ground.img"), work.join("ground"));
        sparse(&image, OUTER_BYTES)?;
        FileSystem::Xfs.make(&image)?;
        let device = attach(&image, leftovers)?;
        mount(&device, &folder, leftovers)?;
        Ok(Self { folder })
    }
}

/// One volume, mounted.
pub(crate) struct Volume {
    name: String,
    /// Counts the cuts.
    generation: u32,
    ground: PathBuf,
    device: String,
    mounted: PathBuf,
}

impl Volume {
    /// Makes a volume and mounts it at `path`.
    pub(crate) fn make(
        ground: &Ground,
        name: &str,
        file_system: FileSystem,
        path: &Path,
        leftovers: &mut Leftovers,
    ) -> Result<Self, FaultError> {
        let ground = ground.folder.clone();
        let image = ground.join(format!("{name}-0.img"));
        sparse(&image, VOLUME_BYTES)?;
        file_system.make(&image)?;
        let device = attach(&image, leftovers)?;
        mount(&device, path, leftovers)?;
        Ok(Self { name: name.to_owned(), generation: 0, ground, device, mounted: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }

    fn image(&self, generation: u32) -> PathBuf {
        self.ground.join(format!("{}-{generation}.img", self.name))
    }

    /// Keeps what the block layer has at this instant. Whoever writes to the volume must end before [`Self::power_on`].
    pub(crate) fn cut(&mut self) -> Result<(), FaultError> {
        let (from, to) = (self.image(self.generation), self.image(self.generation + 1));
        let failed = |error| FaultError::Io(to.display().to_string(), error);
        let source = File::open(&from).map_err(|error| FaultError::Io(from.display().to_string(), error))?;
        let target = OpenOptions::new().write(true).create_new(true).open(&to).map_err(failed)?;
        rustix::fs::ioctl_ficlone(&target, &source).map_err(|error| failed(error.into()))?;
        self.generation += 1;
        Ok(())
    }

    /// Mounts what the cut left, in place of what was there.
    pub(crate) fn power_on(&mut self, leftovers: &mut Leftovers) -> Result<(), FaultError> {
        command("umount", &[self.mounted.as_ref()])?;
        command("losetup", &["--detach".as_ref(), self.device.as_ref()])?;
        let old = self.image(self.generation - 1);
        std::fs::remove_file(&old).map_err(|error| FaultError::Io(old.display().to_string(), error))?;
        self.device = attach(&self.image(self.generation), leftovers)?;
        mount(&self.device, &self.mounted, leftovers)
    }

    /// Unmounts the volume and removes its file.
    pub(crate) fn remove(self) -> Result<(), FaultError> {
        command("umount", &[self.mounted.as_ref()])?;
        command("losetup", &["--detach".as_ref(), self.device.as_ref()])?;
        let image = self.image(self.generation);
        std::fs::remove_file(&image).map_err(|error| FaultError::Io(image.display().to_string(), error))
    }
}

fn sparse(path: &Path, bytes: u64) -> Result<(), FaultError> {
    let made = File::create_new(path).and_then(|file| file.set_len(bytes));
    made.map_err(|error| FaultError::Io(path.display().to_string(), error))
}

fn attach(image: &Path, leftovers: &mut Leftovers) -> Result<String, FaultError> {
    let device = command("losetup", &["--find".as_ref(), "--show".as_ref(), image.as_ref()])?;
    leftovers.loop_device(&device, image)?;
    Ok(device)
}

fn mount(device: &str, path: &Path, leftovers: &mut Leftovers) -> Result<(), FaultError> {
    std::fs::create_dir_all(path).map_err(|error| FaultError::Io(path.display().to_string(), error))?;
    leftovers.mount(path)?;
    command("mount", &[device.as_ref(), path.as_ref()]).map(drop)
}

/// Runs a program and returns what it said.
fn command(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<String, FaultError> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| FaultError::Io(format!("cannot run {program}"), error))?;
    if !output.status.success() {
        let arguments = arguments.join(" ".as_ref()).to_string_lossy().into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(FaultError::Setup(format!(
            "{program} {arguments}: {complaint}; power cuts need root and loop devices"
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
