//! TensorBoard event files: scalars and text, written by hand.
//!
//! The format is a sequence of TFRecords, each a protobuf `Event`. Four message types with a handful of
//! fields do not justify a protobuf compiler; the field numbers below are those of TensorFlow's
//! `event.proto`, `summary.proto` and `tensor.proto`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one event file. TensorBoard shows all files of a folder as one run.
#[derive(Debug)]
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl EventWriter {
    /// Opens a new event file in `folder`, which is created if need be.
    ///
    /// A resumed run passes the step that it resumes from: TensorBoard then hides what earlier files
    /// of the folder say about later steps.
    ///
    /// # Errors
    /// When the folder or file cannot be written.
    pub fn create(folder: &Path, resumed_from: Option<u64>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let seconds = now() as u64;
        let process = std::process::id();
        // TensorBoard reads files in the order of their names; the counter keeps that the order of
        // creation within one second.
        let mut attempt = 0;
        let (file, path) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.{attempt}.{process}.phyla"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        let mut writer = Self { file: BufWriter::new(file), path };
        let mut version = Message::event(0);
        version.bytes(3, b"brain.Event:2"); // Event.file_version
        writer.record(&version.0)?;
        if let Some(step) = resumed_from {
            let mut log = Message::default();
            log.varint(1, 1); // SessionLog.status = START
            let mut event = Message::event(step + 1);
            event.bytes(7, &log.0); // Event.session_log
            writer.record(&event.0)?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Where the events go.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends scalars of one step, such as `("train/loss", 2.3)`.
    ///
    /// # Errors
    /// When the write fails.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let mut summary = Message::default();
        for (tag, scalar) in values {
            let mut value = Message::default();
            value.bytes(1, tag.as_bytes()); // Value.tag
            value.float(2, *scalar as f32); // Value.simple_value
            summary.bytes(1, &value.0); // Summary.value
        }
        self.summary(step, &summary)
    }

    /// Appends a text, shown as Markdown.
    ///
    /// # Errors
    /// When the write fails.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> io::Result<()> {
        let mut plugin = Message::default();
        plugin.bytes(1, b"text"); // PluginData.plugin_name
        let mut metadata = Message::default();
        metadata.bytes(1, &plugin.0); // SummaryMetadata.plugin_data
        metadata.varint(4, 2); // SummaryMetadata.data_class = TENSOR
        let mut dim = Message::default();
        dim.varint(1, 1); // Dim.size
        let mut shape = Message::default();
        shape.bytes(2, &dim.0); // TensorShapeProto.dim
        let mut tensor = Message::default();
        tensor.varint(1, 7); // TensorProto.dtype = DT_STRING
        tensor.bytes(2, &shape.0); // TensorProto.tensor_shape
        tensor.bytes(8, text.as_bytes()); // TensorProto.string_val
        let mut value = Message::default();
        value.bytes(1, tag.as_bytes()); // Value.tag
        value.bytes(8, &tensor.0); // Value.tensor
        value.bytes(9, &metadata.0); // Value.metadata
        let mut summary = Message::default();
        summary.bytes(1, &value.0); // Summary.value
        self.summary(step, &summary)
    }

    /// Hands everything written so far to the system, where TensorBoard sees it.
    ///
    /// # Errors
    /// When the write fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn summary(&mut self, step: u64, summary: &Message) -> io::Result<()> {
        let mut event = Message::event(step);
        event.bytes(5, &summary.0); // Event.summary
        self.record(&event.0)
    }

    /// One TFRecord: length, its checksum, data, its checksum.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(data)?;
        self.file.write_all(&masked_crc(data).to_le_bytes())
    }
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// An `Event` of this moment.
    fn event(step: u64) -> Self {
        let mut event = Self::default();
        event.tag(1, 1); // Event.wall_time, a double
        event.0.extend(now().to_le_bytes());
        event.varint(2, step); // Event.step
        event
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.raw_varint(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.tag(field, 0);
        self.raw_varint(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.tag(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// TFRecord's checksum: CRC-32C, rotated and offset, because a checksum of data that itself holds
/// checksums would be weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), a byte at a time: records are small.
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !data.iter().fold(!0, |crc, byte| TABLE[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Fields of a protobuf message: number and content, numbers as little-endian bytes.
    fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in 0.. {
                let byte = data[0];
                *data = &data[1..];
                value |= u64::from(byte & 0x7f) << (7 * shift);
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut found = Vec::new();
        while !data.is_empty() {
            let tag = varint(&mut data);
            let content = match tag & 7 {
                0 => varint(&mut data).to_le_bytes().to_vec(),
                wire => {
                    let length = match wire {
                        1 => 8,
                        5 => 4,
                        _ => varint(&mut data) as usize,
                    };
                    let (content, rest) = data.split_at(length);
                    data = rest;
                    content.to_vec()
                }
            };
            found.push((tag >> 3, content));
        }
        found
    }

    fn field(data: &[u8], number: u64) -> Vec<u8> {
        fields(data).into_iter().find(|(found, _)| *found == number).unwrap().1
    }

    fn records(path: &Path) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        records
    }

    #[test]
    fn crc32c_gives_the_values_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn scalars_and_text_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        writer.scalars(300, &[("train/loss", 2.5), ("train/lr", 1e-3)]).unwrap();
        writer.text(301, "sample", "Once upon a time").unwrap();
        writer.flush().unwrap();

        let records = records(writer.path());
        assert_eq!(records.len(), 3);
        assert_eq!(field(&records[0], 3), b"brain.Event:2");

        assert_eq!(field(&records[1], 2), 300_u64.to_le_bytes());
        let wall_time = f64::from_le_bytes(field(&records[1], 1).try_into().unwrap());
        assert!((now() - wall_time).abs() < 60.0);
        let values = fields(&field(&records[1], 5));
        assert_eq!(values.len(), 2);
        assert_eq!(field(&values[0].1, 1), b"train/loss");
        assert_eq!(field(&values[0].1, 2), 2.5_f32.to_le_bytes());
        assert_eq!(field(&values[1].1, 2), 1e-3_f32.to_le_bytes());

        let value = field(&field(&records[2], 5), 1);
        assert_eq!(field(&value, 1), b"sample");
        assert_eq!(field(&field(&value, 8), 8), b"Once upon a time");
        assert_eq!(field(&field(&field(&value, 9), 1), 1), b"text");
    }

    #[test]
    fn a_resumed_run_opens_its_own_file_and_marks_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), None).unwrap();
        let second = EventWriter::create(folder.path(), Some(40)).unwrap();
        assert!(first.path() < second.path());
        let start = &records(second.path())[1];
        assert_eq!(field(start, 2), 41_u64.to_le_bytes());
        assert_eq!(field(&field(start, 7), 1), 1_u64.to_le_bytes());
    }
}
