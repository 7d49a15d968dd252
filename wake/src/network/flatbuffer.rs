//! Reading a FlatBuffer (`.tflite` is one) within its bounds: what points outside is an error, and nothing is allocated.
//!
//! The layout is that of <https://flatbuffers.dev/internals/>. The crate of that name reads through code that is generated from the
//! schema, thousands of lines for the dozen of tables that are needed here.

use super::ModelError;

/// A table: fields by number, each of them there or not.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where its fields are, 2 bytes each.
    fields: &'a [u8],
}

fn slice(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], ModelError> {
    let end = at.checked_add(length);
    end.and_then(|end| bytes.get(at..end))
        .ok_or(ModelError::Truncated)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ModelError> {
    let found = slice(bytes, at, N)?;
    found.try_into().map_err(|_| ModelError::Truncated)
}

fn offset(bytes: &[u8], at: usize) -> Result<usize, ModelError> {
    let to = u32::from_le_bytes(number(bytes, at)?);
    at.checked_add(to as usize).ok_or(ModelError::Truncated)
}

impl<'a> Table<'a> {
    /// The root of a file with this identifier.
    pub(super) fn root(bytes: &'a [u8], identifier: &[u8; 4]) -> Result<Table<'a>, ModelError> {
        if bytes.get(4..8) != Some(identifier) {
            return Err(ModelError::NotTflite);
        }
        Table::at(bytes, offset(bytes, 0)?)
    }

    fn at(bytes: &'a [u8], at: usize) -> Result<Table<'a>, ModelError> {
        let back = i32::from_le_bytes(number(bytes, at)?);
        let fields = (at as i64).checked_sub(i64::from(back));
        let fields = fields.and_then(|at| usize::try_from(at).ok());
        let fields = fields.ok_or(ModelError::Truncated)?;
        let length = usize::from(u16::from_le_bytes(number(bytes, fields)?));
        let length = length.checked_sub(4).ok_or(ModelError::Truncated)?;
        Ok(Table {
            bytes,
            at,
            fields: slice(bytes, fields + 4, length)?,
        })
    }

    /// Where a field is; `None` where it is not there.
    fn field(&self, field: usize) -> Option<usize> {
        let at = self.fields.get(2 * field..2 * field + 2)?;
        match u16::from_le_bytes([at[0], at[1]]) {
            0 => None,
            at => Some(self.at + usize::from(at)),
        }
    }

    pub(super) fn u8(&self, field: usize, default: u8) -> Result<u8, ModelError> {
        self.field(field)
            .map_or(Ok(default), |at| Ok(number::<1>(self.bytes, at)?[0]))
    }

    pub(super) fn u32(&self, field: usize, default: u32) -> Result<u32, ModelError> {
        self.field(field).map_or(Ok(default), |at| {
            Ok(u32::from_le_bytes(number(self.bytes, at)?))
        })
    }

    pub(super) fn i32(&self, field: usize, default: i32) -> Result<i32, ModelError> {
        self.u32(field, default as u32).map(|x| x as i32)
    }

    pub(super) fn u64(&self, field: usize, default: u64) -> Result<u64, ModelError> {
        self.field(field).map_or(Ok(default), |at| {
            Ok(u64::from_le_bytes(number(self.bytes, at)?))
        })
    }

    pub(super) fn table(&self, field: usize) -> Result<Option<Table<'a>>, ModelError> {
        let Some(at) = self.field(field) else {
            return Ok(None);
        };
        Table::at(self.bytes, offset(self.bytes, at)?).map(Some)
    }

    /// The bytes of a vector of `width` bytes an element; empty where it is not there.
    fn vector(&self, field: usize, width: usize) -> Result<(usize, &'a [u8]), ModelError> {
        let Some(at) = self.field(field) else {
            return Ok((0, &[]));
        };
        let at = offset(self.bytes, at)?;
        let count = u32::from_le_bytes(number(self.bytes, at)?) as usize;
        let length = count.checked_mul(width).ok_or(ModelError::Truncated)?;
        Ok((at + 4, slice(self.bytes, at + 4, length)?))
    }

    pub(super) fn bytes(&self, field: usize) -> Result<&'a [u8], ModelError> {
        Ok(self.vector(field, 1)?.1)
    }

    pub(super) fn i32s(
        &self,
        field: usize,
    ) -> Result<impl ExactSizeIterator<Item = i32> + use<'a>, ModelError> {
        let (_, bytes) = self.vector(field, 4)?;
        Ok(bytes.as_chunks().0.iter().map(|x| i32::from_le_bytes(*x)))
    }

    pub(super) fn i64s(
        &self,
        field: usize,
    ) -> Result<impl ExactSizeIterator<Item = i64> + use<'a>, ModelError> {
        let (_, bytes) = self.vector(field, 8)?;
        Ok(bytes.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x)))
    }

    pub(super) fn f32s(
        &self,
        field: usize,
    ) -> Result<impl ExactSizeIterator<Item = f32> + use<'a>, ModelError> {
        let (_, bytes) = self.vector(field, 4)?;
        Ok(bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)))
    }

    /// The tables that a vector points to.
    pub(super) fn tables(
        &self,
        field: usize,
    ) -> Result<impl ExactSizeIterator<Item = Result<Table<'a>, ModelError>> + use<'a>, ModelError>
    {
        let (at, vector) = self.vector(field, 4)?;
        let bytes = self.bytes;
        Ok((0..vector.len() / 4).map(move |i| Table::at(bytes, offset(bytes, at + 4 * i)?)))
    }
}
