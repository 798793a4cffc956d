//! The wire format of protobuf: tags, varints, lengths.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the bytes end in the middle of a value")]
    Truncated,
    #[error("a number is longer than 10 bytes")]
    LongVarint,
    #[error("a length goes past the end")]
    Length,
    #[error("field number 0")]
    FieldZero,
    #[error("wire type {0} is not known")]
    WireType(u8),
}

/// The value of one field as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl Raw<'_> {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64(_) => "a 64-bit value",
            Self::Bytes(_) => "a length-delimited value",
            Self::Fixed32 => "a 32-bit value",
        }
    }
}

/// Reads one message; knows how far into the body it is.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` begin in the body.
    base: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], base: usize) -> Self {
        Self { bytes, at: 0, base }
    }

    /// Place in the body, in bytes.
    pub(crate) fn offset(&self) -> usize {
        self.base + self.at
    }

    /// The next field, or `None` at the end. The place of a length-delimited value is
    /// [`Self::offset`] minus its length.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>, WireError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::LongVarint)?;
        if number == 0 {
            return Err(WireError::FieldZero);
        }
        let raw = match (tag & 7) as u8 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::Length)?;
                Raw::Bytes(self.take(length)?)
            }
            5 => {
                self.fixed::<4>()?;
                Raw::Fixed32
            }
            other => return Err(WireError::WireType(other)),
        };
        Ok(Some((number, raw)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(WireError::Truncated)?;
            self.at += 1;
            if shift < 64 {
                value |= u64::from(byte & 0x7f) << shift;
            }
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::LongVarint)
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let end = self.at.checked_add(N).ok_or(WireError::Truncated)?;
        let bytes = self.bytes.get(self.at..end).ok_or(WireError::Truncated)?;
        self.at = end;
        bytes.try_into().map_err(|_| WireError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).ok_or(WireError::Length)?;
        let bytes = self.bytes.get(self.at..end).ok_or(WireError::Length)?;
        self.at = end;
        Ok(bytes)
    }
}
