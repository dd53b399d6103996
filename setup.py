from setuptools import setup
setup(name="imgops")
