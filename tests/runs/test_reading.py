import json
import pathlib

import tensorflow as tf
from absl.testing import parameterized
from finished import FinishedRun

import vae_tf
from vae_tf.runs import reading, sums


class ReadingTest(parameterized.TestCase, FinishedRun):
    def test_a_changed_setting_is_not_believed(self):
        run_dir = self.copy()
        path = run_dir / reading.CONFIG
        text = path.read_text()
        path.write_text(text.replace('"relu"', '"tanh"'))
        self.assertNotEqual(path.read_text(), text)
        for read in (reading.read_run, reading.config_of, vae_tf.load):
            with self.assertRaisesRegex(vae_tf.UserError, "changed or damaged"):
                read(run_dir)
        (run_dir / sums.SUMS).unlink()
        self.assertEqual(reading.config_of(run_dir).activation, "tanh")

    @parameterized.parameters("", "{", "[]", "{}", '{"split": "train"}')
    def test_a_damaged_evaluation_names_what_makes_it_anew(self, text):
        run_dir = pathlib.Path(self.create_tempdir().full_path)
        with self.assertRaises(FileNotFoundError):
            reading.read_evaluation(run_dir, "test")
        path = reading.evaluation_path(run_dir, "test")
        path.write_text(text)
        with self.assertRaisesRegex(
            vae_tf.UserError, "damaged file .* --split test makes it anew"
        ):
            reading.read_evaluation(run_dir, "test")
        path.unlink()
        path.mkdir()
        with self.assertRaisesRegex(vae_tf.UserError, "Is a directory"):
            reading.read_evaluation(run_dir, "test")
        path.rmdir()
        found = {"split": "test", "elbo": -1.0}
        with sums.sealed(path) as temporary:
            temporary.write_text(json.dumps(found))
        self.assertEqual(reading.read_evaluation(run_dir, "test"), found)
        path.write_text(json.dumps(found | {"elbo": -0.5}))
        with self.assertRaisesRegex(vae_tf.UserError, "changed or damaged"):
            reading.read_evaluation(run_dir, "test")


if __name__ == "__main__":
    tf.test.main()
