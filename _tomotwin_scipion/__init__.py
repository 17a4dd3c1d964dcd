"""The Scipion plugin under a name that sorts before the engine's, for Scipion's installer.

scipion-app (3.8) takes for the plugin the folder of the first ``__init__.py`` in a distribution's list of files
(``PluginInfo.getDirName``), and pip sorts that list: it would be tomotwin_core, which is no plugin, and so
``installp``, ``uninstallp`` and the plugin manager would not find the engine's environment. Nothing else comes
here: Scipion itself loads tomotwin_scipion, by the entry point.
"""

from tomotwin_scipion import Plugin, _logo, _references

__all__ = ["Plugin", "_logo", "_references"]
