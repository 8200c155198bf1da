import contextlib
import io
import sys
from unittest import mock

import tensorflow as tf
from absl.testing import parameterized

from vae_tf import command_line
from vae_tf.config import Config
from vae_tf.settings import UserError

ABOUT = "What it is about."


def run(*arguments, action=lambda given: None):
    """Exit code, standard output and standard error of a command line."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["train.py", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            command_line.run(Config, action, ABOUT)
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


class CommandLineTest(parameterized.TestCase, tf.test.TestCase):
    def test_gives_what_was_named_in_its_type(self):
        given = {}
        code, _, _ = run(
            "--latent_dim=3",
            "--hidden_units",
            "64,32",
            "--learning_rate=1e-4",
            "--resume",
            "--dataset=digits",
            action=given.update,
        )
        self.assertEqual(code, 0)
        self.assertEqual(
            given,
            {
                "latent_dim": 3,
                "hidden_units": (64, 32),
                "learning_rate": 1e-4,
                "resume": True,
                "dataset": "digits",
            },
        )

    def test_several_values_may_be_typed_as_words(self):
        given = {}
        words = ("--hidden_units", "64", "32", "16,8", "--latent_dim", "3")
        code, _, err = run(*words, action=given.update)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(given["hidden_units"], (64, 32, 16, 8))
        self.assertEqual(given["latent_dim"], 3)

    @parameterized.named_parameters(
        ("value", ["--latent_dim=0"], "--latent_dim: expected an .*received 0"),
        ("word", ["--epochs=ten"], "--epochs: expected .* received 'ten'"),
        ("list", ["--hidden_units=4,,2"], "--hidden_units: .*received '4,,2'"),
        (
            "choice",
            ["--prior=cauchy"],
            "--prior: expected one of standard_norm",
        ),
        ("flag", ["--latentdim=2"], "Unknown command line flag 'latentdim'"),
        ("bool", ["--resume=maybe"], "resume"),
        ("no_value", ["--epochs"], "Missing value for flag --epochs"),
        ("stray", ["mnist"], "expected flags only .* received 'mnist'"),
        ("second", ["--latent_dim", "3", "4"], "flags only .* received '4'"),
        ("words", ["--hidden_units", "4", "x"], "--hidden_units: .*'4,x'"),
    )
    def test_a_mistake_is_one_line(self, arguments, message):
        code, out, err = run(*arguments)
        self.assertEqual(code, 2)
        self.assertEqual(out, "")
        self.assertRegex(err, f"^ERROR: .*{message}.*\n$")

    def test_a_user_error_of_the_action_is_one_line(self):
        def action(given):
            raise UserError("x: expected a,\n  received b.")

        code, _, err = run(action=action)
        self.assertEqual(
            (code, err), (2, "ERROR: x: expected a, received b.\n")
        )

    def test_any_other_exception_is_ours_and_keeps_its_traceback(self):
        def action(given):
            raise ValueError("a bug")

        with self.assertRaisesRegex(ValueError, "a bug"):
            run(action=action)

    def test_help_names_every_setting(self):
        action = mock.Mock()
        code, out, err = run("--help", action=action)
        self.assertEqual((code, err), (0, ""))
        self.assertStartsWith(out, ABOUT)
        for name in Config.__dataclass_fields__:
            self.assertIn(f"--{name}:", out.replace("--[no]", "--"))
        action.assert_not_called()
