import tensorflow as tf

from vae_tf import networks, posteriors, settings
from vae_tf.settings import UserError


class SettingsTest(tf.test.TestCase):
    def test_choose_takes_names_and_instances(self):
        family = {"mlp": networks.MLP}
        chosen = settings.choose("network", "mlp", family, hidden_units=(3,))
        self.assertEqual(chosen.hidden_units, (3,))
        self.assertIs(settings.choose("network", chosen, family), chosen)
        # A member takes the settings that it names, and no others.
        settings.choose(
            "network", "mlp", family, hidden_units=None, flow_depth=3
        )
        with self.assertRaisesRegex(UserError, "at least 2 for posterior iaf"):
            settings.choose(
                "posterior", "iaf", posteriors.POSTERIORS, latent_dim=1
            )
        with self.assertRaisesRegex(
            UserError, "network: expected one of mlp, "
        ):
            settings.choose("network", "lstm", family)
