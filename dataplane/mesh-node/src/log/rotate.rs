//! Log files: one for each day, cut by size, kept for 30 days, closed days packed as `.zip`.
//!
//! Files are `NAME-YYYY-MM-DD.log`, further parts of a day `NAME-YYYY-MM-DD.1.log` and so on; days are UTC, like the times in
//! the lines. Packing and deleting happen on a thread of their own and touch only files of this NAME, so that several programs
//! may share a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Parts of one day at most; beyond it the last part grows.
const PARTS_MAX: u32 = 10_000;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file is closed when it reaches this many bytes.
    pub file_bytes: u64,
    /// Days after which a file is deleted.
    pub days: u64,
    /// All files of one program instance together, in bytes; the oldest go first.
    pub total_bytes: u64,
}

impl Default for Limits {
    /// 64 MiB a file, 30 days, 1 GiB in all.
    fn default() -> Self {
        Self { file_bytes: 64 * MIB, days: 30, total_bytes: 1024 * MIB }
    }
}

/// A day of the calendar, by its number since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Day(u64);

impl Day {
    fn of(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY.as_secs())
    }

    /// As `YYYY-MM-DD`, by the Gregorian calendar.
    fn name(self) -> String {
        // Years are counted from March, so that the leap day is a year's last; an era is 400 years of 146,097 days.
        let since_era_zero = self.0 + 719_468;
        let (era, day) = (since_era_zero / 146_097, since_era_zero % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month_from_march = (5 * day + 2) / 153;
        let day = day - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// The inverse of [`Day::name`].
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let mut number = |digits: usize| parts.next().filter(|part| part.len() == digits)?.parse::<u64>().ok();
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let year = year - u64::from(month <= 2);
        let month_from_march = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let day_of_era = (year % 400) * 365 + (year % 400) / 4 - (year % 400) / 100 + day_of_year;
        (year / 400 * 146_097 + day_of_era).checked_sub(719_468).map(Self)
    }
}

/// The file that lines go to at the moment.
#[derive(Debug)]
pub struct RotatingFile<C> {
    directory: PathBuf,
    name: String,
    limits: Limits,
    clock: C,
    day: Day,
    part: u32,
    file: File,
    bytes: u64,
    /// Wakes the housekeeper with the day that is being written.
    housekeeper: mpsc::Sender<(Day, PathBuf)>,
}

impl<C: Fn() -> SystemTime> RotatingFile<C> {
    /// Opens today's file in `directory`, which is made if need be, and goes on where an earlier run stopped.
    pub fn open(directory: &Path, name: &str, limits: Limits, clock: C) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let day = Day::of(clock());
        let (part, file, bytes) = open_part(directory, name, day, 0, limits.file_bytes)?;
        let (housekeeper, orders) = mpsc::channel::<(Day, PathBuf)>();
        let house = House { directory: directory.to_owned(), name: name.to_owned(), limits };
        thread::Builder::new().name("mesh-logs".into()).spawn(move || {
            for (today, current) in orders {
                house.keep(today, &current);
            }
        })?;
        let rotating = Self {
            directory: directory.to_owned(),
            name: name.to_owned(),
            limits,
            clock,
            day,
            part,
            file,
            bytes,
            housekeeper,
        };
        rotating.wake_housekeeper();
        Ok(rotating)
    }

    /// Closes the file if the day or its room is over.
    fn turn_over(&mut self) -> io::Result<()> {
        let today = Day::of((self.clock)());
        // A clock that was set back does not reopen days that are packed already.
        let first = match today > self.day {
            true => 0,
            false if self.bytes >= self.limits.file_bytes => self.part + 1,
            false => return Ok(()),
        };
        let day = today.max(self.day);
        (self.part, self.file, self.bytes) =
            open_part(&self.directory, &self.name, day, first, self.limits.file_bytes)?;
        self.day = day;
        self.wake_housekeeper();
        Ok(())
    }

    fn wake_housekeeper(&self) {
        // It is gone only if it panicked; logs go on without it.
        let _ = self.housekeeper.send((self.day, path_of(&self.directory, &self.name, self.day, self.part)));
    }
}

impl<C: Fn() -> SystemTime> Write for RotatingFile<C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A new file that cannot be opened (a full disk) leaves the old one in use.
        let _ = self.turn_over();
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn path_of(directory: &Path, name: &str, day: Day, part: u32) -> PathBuf {
    match part {
        0 => directory.join(format!("{name}-{}.log", day.name())),
        part => directory.join(format!("{name}-{}.{part}.log", day.name())),
    }
}

/// Opens the first part of the day, from `part` on, that still has room and was not packed.
fn open_part(directory: &Path, name: &str, day: Day, part: u32, file_bytes: u64) -> io::Result<(u32, File, u64)> {
    let mut part = part;
    loop {
        let path = path_of(directory, name, day, part);
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        if part >= PARTS_MAX || !packed(&path).exists() {
            let file = options.open(&path)?;
            let bytes = file.metadata()?.len();
            if bytes < file_bytes || part >= PARTS_MAX {
                return Ok((part, file, bytes));
            }
        }
        part += 1;
    }
}

fn packed(path: &Path) -> PathBuf {
    path.with_extension("log.zip")
}

/// Packs and deletes.
struct House {
    directory: PathBuf,
    name: String,
    limits: Limits,
}

/// A file of ours.
struct Kept {
    path: PathBuf,
    day: Day,
    bytes: u64,
    is_packed: bool,
}

impl House {
    /// Packs closed files and deletes what is too old or too much. Failures are logged and tried again the next time.
    fn keep(&self, today: Day, current: &Path) {
        for kept in self.files().into_iter().filter(|kept| !kept.is_packed && kept.path != current && kept.day < today)
        {
            if let Err(error) = pack(&kept.path) {
                tracing::warn!(file = %kept.path.display(), %error, "cannot pack a log file");
            }
        }
        let mut files = self.files();
        files.retain(|kept| kept.path != current);
        files.sort_by(|a, b| (a.day, &a.path).cmp(&(b.day, &b.path)));
        // The file in use may still grow to its limit.
        let mut total: u64 = self.limits.file_bytes + files.iter().map(|kept| kept.bytes).sum::<u64>();
        for kept in files {
            if kept.day.0 + self.limits.days < today.0 || total > self.limits.total_bytes {
                total -= kept.bytes;
                if let Err(error) = fs::remove_file(&kept.path) {
                    tracing::warn!(file = %kept.path.display(), %error, "cannot delete an old log file");
                }
            }
        }
    }

    fn files(&self) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        entries.flatten().filter_map(|entry| self.ours(&entry)).collect()
    }

    /// Takes a directory entry if its name is one that [`path_of`] or [`packed`] makes.
    fn ours(&self, entry: &fs::DirEntry) -> Option<Kept> {
        let file_name = entry.file_name().into_string().ok()?;
        let rest = file_name.strip_prefix(&self.name)?.strip_prefix('-')?;
        let (rest, is_packed) = match rest.strip_suffix(".log.zip") {
            Some(rest) => (rest, true),
            None => (rest.strip_suffix(".log")?, false),
        };
        let (day, part) = rest.split_once('.').unwrap_or((rest, "0"));
        part.parse::<u32>().ok()?;
        Some(Kept { path: entry.path(), day: Day::parse(day)?, bytes: entry.metadata().ok()?.len(), is_packed })
    }
}

/// Packs one file; it is replaced only when the archive is complete.
fn pack(path: &Path) -> io::Result<()> {
    let unfinished = path.with_extension("zip.part");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut archive = zip::ZipWriter::new(File::create(&unfinished)?);
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file(name, options).map_err(io::Error::other)?;
    io::copy(&mut File::open(path)?, &mut archive)?;
    archive.finish().map_err(io::Error::other)?.sync_all()?;
    fs::rename(&unfinished, packed(path))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests;
