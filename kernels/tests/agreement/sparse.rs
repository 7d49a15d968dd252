//! Selected rows and columns against the whole product with zeros elsewhere: the same bits.

use crate::common::{Random, assert_same, isas};
use kernels::{Matrix, Pool, sparse};

#[test]
fn selected_rows_and_columns_are_those_of_the_whole_product() {
    let mut random = Random::new(3);
    for isa in isas() {
        let pool = Pool::new(isa, 2);
        for (rows, cols) in [(1, 1), (7, 5), (40, 33), (65, 130), (20, 1300)] {
            let w = random.floats(rows * cols, 1.0);
            let w = Matrix::f32(&w, rows, cols);
            let (x, v) = (random.floats(cols, 1.0), random.floats(cols, 1.0));
            let picked: Vec<u32> = (0..rows as u32).filter(|row| row % 3 != 1).collect();
            let mut got = vec![0.0; picked.len()];
            sparse::matvec_rows(&pool, w, &picked, &x, &mut got);
            let mut whole = vec![0.0; rows];
            kernels::matvec::matvec(&pool, w, &x, &mut whole);
            let expected: Vec<f32> = picked.iter().map(|&row| whole[row as usize]).collect();
            let what = format!("{isa} {rows}x{cols}");
            assert_same(&what, &got, &expected);

            let picked: Vec<u32> = (0..cols as u32).filter(|col| col % 3 != 1).collect();
            let chosen: Vec<f32> = picked.iter().map(|&col| v[col as usize]).collect();
            let mut sparse_x = vec![0.0; cols];
            for &col in &picked {
                sparse_x[col as usize] = v[col as usize];
            }
            let mut got = vec![0.0; rows];
            sparse::matvec_columns(&pool, w, &picked, &chosen, &mut got);
            kernels::matvec::matvec(&pool, w, &sparse_x, &mut whole);
            assert_same(&what, &got, &whole);
        }
    }
}
